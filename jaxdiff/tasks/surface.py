"""Riemannian score models: diffusion of points on the torus and the sphere, by the gradient along the surface.

A sample is a cloud of points, a picture a map of how many lie where. Points are made (`data.surfaces`), with a law that
is known, and pictures are not looked at, so `data.name` is 'synthetic'.

Source: De Bortoli et al. 2022, arXiv 2202.02763; see `diffusion.spaces`.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data import surfaces
from jaxdiff.data.source import DataConfig, Example
from jaxdiff.diffusion import spaces
from jaxdiff.diffusion.spaces import Space
from jaxdiff.models.config import NetConfig
from jaxdiff.models.points import Points, PointsConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.direct import kept
from jaxdiff.pipelines.originals import OriginalsPipeline
from jaxdiff.sampling import walk
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Preview, Task, Variables
from jaxdiff.typing import Batch, Key, Metrics, Params

SIDE = 32
"""Cells of a map, across and up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Diffusion of points.

    Attributes:
      net: the network.
      space: what they lie on.
      steps: steps of sampling.
      points: points of a sample.
      previews: clouds that the run shows of itself, beside the law that they are to have.
    """

    net: NetConfig = PointsConfig()
    space: Literal["torus", "sphere"] = "sphere"
    steps: int = 100
    points: int = 4096
    previews: int = 1

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if not isinstance(self.net, PointsConfig):
            raise ValueError(f"task.net is a {type(self.net).__name__}: expected points")
        self.net.check()
        for name, least, most in (("steps", 2, 10_000), ("points", 1, 10**6), ("previews", 0, 64)):
            if not least <= (value := getattr(self, name)) <= most:
                raise ValueError(f"task.{name} is {value}: expected {least} to {most}")
        if data.name != "synthetic":
            raise ValueError(f"data.name is {data.name!r}, pictures: points are made, set it to 'synthetic'")

    def task(self, assets: Any, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the network."""
        previews = {"maps": self._preview(spec)} if self.previews else {}
        return Task(init=self._init, loss=self._loss, example=self._example, previews=previews)

    def _example(self, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"point": surfaces.draw(self.space, rng).astype(np.float32)}

    def _space(self) -> Space:
        return spaces.torus() if self.space == "torus" else spaces.sphere()

    def _network(self) -> Points:
        net: Any = self.net
        return Points(net, self.space == "torus")

    def _init(self, key: Key, loaded: Params, batch: Batch) -> Variables:
        return Variables(self._network().init(key, jnp.asarray(batch["point"][:1]), jnp.ones(1))["params"])

    def score(self, params: Params, x: Array, v: Array) -> Array:
        """Returns the gradient of log p_v along the surface at points x [b d], v [b]."""
        said: Any = self._network().apply({"params": params}, x, v)
        return said if self.space == "torus" else jax.vmap(spaces.along)(x, said)

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        said = lambda x, v: self.score(params, x, v)
        return spaces.loss(self._space(), said, jnp.asarray(batch["point"]), keys).mean(), {}, {}

    def draw(self, params: Params, key: Key) -> Array:
        """Returns a cloud of points [n d]."""
        said, dims = (lambda x, v: self.score(params, x, v)), surfaces.CENTERS[self.space].shape[1]
        return walk.walked(self._space(), said, jax.random.split(key, self.points), dims, self.steps)

    def pipeline(self, assets: Any, weights: Variables, spec: Spec = MeshSpec()) -> OriginalsPipeline:
        """Returns what draws clouds, shows their maps, and writes OUT/0.npy and so on."""

        def draw(weights: Any, numbers: Any, keys: Any, label: Any) -> Array:
            return jax.vmap(lambda key: self.draw(weights.params, key))(keys)

        def write(out: Path, clouds: np.ndarray) -> list[Path]:
            paths = [out.with_suffix("") / f"{i}.npy" for i in range(len(clouds))]
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            for path, cloud in zip(paths, clouds, strict=True):
                np.save(path, cloud)
            return paths

        show = lambda clouds: np.stack([self.shown(surfaces.counted(self.space, one, SIDE)) for one in clouds])
        return OriginalsPipeline(weights, draw, show, write, calls=self.steps, spec=spec)

    def shown(self, cells: np.ndarray) -> np.ndarray:
        """Returns a map as a picture; white is the largest probability of the law's map."""
        most = surfaces.exact(self.space, SIDE).max()
        shade = np.rint(255 * np.clip(cells / most, 0, 1)).astype(np.uint8)
        return np.repeat(shade[..., None], 3, -1)

    def _preview(self, spec: Spec) -> Any:
        with_weights = kept(lambda weights: self.pipeline(None, weights, spec))
        law = self.shown(surfaces.exact(self.space, SIDE))

        def preview(weights: Variables, key: Key) -> Preview:
            images = with_weights(weights)([""] * self.previews, key=key)
            return Preview(np.concatenate([law[None], images]), ("the law", *("drawn",) * self.previews))

        return preview
