"""The base of tasks whose pictures are drawn by one function; each family adds a network and its numbers.

A family's class is `FamilyConfig` with `_init` (the first weights), `_bits` (how likely pictures are; the loss is their
mean) and `_draw`. Pictures are whole levels, 0 .. levels - 1, in three channels or, grey, in one.
"""

import abc
import dataclasses
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data import labels as labels_file
from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.objectives import likelihood
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.direct import DirectPipeline, LikelihoodPipeline, NoOptions, kept
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Preview, Task, Variables
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Key, Metrics, Params


class Assets(NamedTuple):
    """Holds what a model is beside its numbers and weights.

    Attributes:
      size: side of its pictures.
      labels: names of its classes.
      part: a network of another run that it stands on.
    """

    size: int
    labels: tuple[str, ...] = ()
    part: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyConfig(TaskConfig):
    """A model of pictures of whole levels.

    Attributes:
      classes: classes of the data that the model is conditioned on; 0: none.
      grey: whether a picture is the mean of its channels.
      levels: levels of a channel; bits/dim are of pictures with so many.
      previews: pictures that the run shows of itself.
    """

    classes: int = 0
    grey: bool = False
    levels: int = 256
    previews: int = 16

    likelihood: ClassVar[str] = "exact"
    """What `_bits` gives; an empty text: nothing."""
    options: ClassVar[type] = NoOptions
    """The class of what a call of the pipeline may be given."""

    @property
    def channels(self) -> int:
        """Returns the channels of a picture."""
        return 1 if self.grey else 3

    @property
    def conditional_classes(self) -> int:
        """Returns how many classes the part that samples is conditioned on; 0: none."""
        return self.classes

    @abc.abstractmethod
    def _init(self, key: Key, x: Array, label: Array | None) -> Variables:
        """Returns the first weights; x [b h w c] are the levels of the first batch, label [b] their classes."""

    @abc.abstractmethod
    def _draw(self, weights: Variables, numbers: Any, keys: Key, label: Array | None, shape: tuple[int, ...]) -> Array:
        """Returns levels [b h w c] of a picture's shape (h, w, c)."""

    def _calls(self, shape: tuple[int, ...]) -> int:
        """Returns how many network calls a picture of this shape takes."""
        return 1

    def _bits(
        self, weights: Variables, x: Array, label: Array | None, keys: Key, *, measured: bool = False
    ) -> tuple[Array, Metrics]:
        """Returns bits/dim [b] of levels x, and metrics; `measured` where a model is evaluated and not trained."""
        raise NotImplementedError("a family without a likelihood has a loss of its own")

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        for name, least, most in (("levels", 2, 256), ("classes", 0, 10**6), ("previews", 0, 1024)):
            if not least <= (value := getattr(self, name)) <= most:
                raise ValueError(f"task.{name} is {value}: expected {least} to {most}")

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads labels.txt of a run that knows classes, or makes it."""
        if not self.classes:
            return Assets(data.size)
        path = folder / "labels.txt"
        if source is not None and len(source.labels) != self.classes:
            raise ValueError(
                f"task.classes is {self.classes}, but {data.name} has {len(source.labels)} classes: set it to that"
            )
        if new and source is not None:
            by_first(lambda: labels_file.write(path, source.labels))
        try:
            names = labels_file.read(path, self.classes)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing: put it back, or train in another workdir") from None
        if source is not None and names != tuple(source.labels):
            raise ValueError(f"{path} names other classes than {data.name}: give the data of the run")
        return Assets(data.size, names)

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the model."""

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            label = jnp.asarray(batch["label"]) if self.classes else None
            params = self._init(key, self.read(jnp.asarray(batch["image"])), label)
            return params._replace(frozen=dict(loaded))

        previews = self._previews(assets, spec) if self.previews else {}
        held_out = self._held_out if self.likelihood else None
        more = self._more(assets)
        example = lambda one, rng: self._row(one)
        return Task(example=example, init=init, loss=self._loss, held_out=held_out, previews=previews, **more)

    def _row(self, one: Example) -> dict[str, np.ndarray]:
        """Returns the row of a batch that an example is."""
        return {"image": one["image"], **({"label": np.asarray(one["label"], np.int32)} if self.classes else {})}

    def _more(self, assets: Any) -> dict[str, Any]:
        """Returns what else `Task` is given."""
        return {}

    def _previews(self, assets: Any, spec: Spec) -> dict[str, Any]:
        """Returns what the run shows of itself."""
        return {"samples": self._preview(assets, spec)}

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        weights = Variables(params, known.frozen, known.extra)
        bits, metrics = self._bits(weights, self.read(batch["image"]), batch.get("label"), keys)
        return bits.mean(), metrics, {}

    def _held_out(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        weights = Variables(params, known.frozen, known.extra)
        bits, metrics = self._bits(weights, self.read(batch["image"]), batch.get("label"), keys, measured=True)
        return bits.mean(), metrics, {}

    def read(self, image: Array) -> Array:
        """Returns the levels [b h w c] of uint8 [b h w 3]."""
        mean = jnp.round(image.astype(jnp.float32).mean(-1, keepdims=True)).astype(jnp.uint8)
        return likelihood.to_levels(mean if self.grey else image, self.levels)

    def shown(self, x: Array) -> Array:
        """Returns uint8 [b h w 3] of levels [b h w c]."""
        return likelihood.to_values(jnp.broadcast_to(x, (*x.shape[:3], 3)), self.levels)

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> DirectPipeline:
        """Returns what draws pictures, and says how likely given ones are where the family can."""
        shape = (assets.size, assets.size, self.channels)

        def draw(weights: Any, numbers: Any, keys: Any, label: Any) -> Array:
            return self.shown(self._draw(weights, numbers, keys, label, shape))

        def bits(weights: Any, image: Any, keys: Any, label: Any) -> Array:
            return self._bits(weights, self.read(image), label, keys, measured=True)[0]

        labels = assets.labels if self.conditional_classes else ()
        how: dict[str, Any] = {"size": assets.size, "labels": labels, "options": self.options, "spec": spec}
        how["calls"] = self._calls(shape)
        if not self.likelihood:
            return DirectPipeline(weights, draw, **how)
        of = "" if self.levels == 256 else f", {self.levels} levels"
        return LikelihoodPipeline(weights, draw, bits, f"{self.likelihood}{', grey' if self.grey else ''}{of}", **how)

    def _preview(self, assets: Assets, spec: Spec) -> Any:
        names = tuple(
            assets.labels[i % self.conditional_classes] if self.conditional_classes else ""
            for i in range(self.previews)
        )
        with_weights = kept(lambda weights: self.pipeline(assets, weights, spec))

        def preview(weights: Variables, key: Key) -> Preview:
            return Preview(with_weights(weights)(names, key=key), names)

        return preview
