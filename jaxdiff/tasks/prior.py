"""unCLIP's prior: diffusion of CLIP's embedding of a picture, conditioned on the picture's caption.

Embeddings are diffused less their mean, over their deviation, both measured over the data; the network estimates the
clean one. CLIP is frozen: a run of the task clip, or a directory of transformers, of which the run keeps a copy. A run
imagines embeddings, which a decoder draws (`tasks.unclip_decoder`).

Source: Ramesh et al. 2022, arXiv 2204.06125, section 2.2.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.diffusion import loss as losses
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.models.config import check_dtype
from jaxdiff.models.prior import PriorConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines import imagine
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.tasks import kept_clip
from jaxdiff.tasks.kept_clip import Kept
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Task, Variables
from jaxdiff.typing import Batch, Key, Metrics, Params

_MEASURED = ("clip_mean", "clip_std")
_PARTS = ("image_encoder", "text_encoder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """A diffusion prior.

    Attributes:
      process: noise process and training objective; the paper predicts x0.
      net: numbers of the transformer, whose widths are CLIP's.
      clip: run of the task clip, or directory of a CLIPModel, that a new run takes.
      drop: probability that training leaves the caption out.
    """

    process: ProcessConfig = ProcessConfig(schedule="cosine", prediction="x0", clip=None)
    net: PriorConfig = PriorConfig()
    clip: Path | None = None
    drop: float = 0.1

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        self.process.check()
        process = self.process
        if process.objective != "denoising" or process.variance == "learned" or process.schedule == "learned":
            raise ValueError(
                f"task.process has objective {process.objective!r}, variance {process.variance!r} and schedule "
                f"{process.schedule!r}: a prior has the objective denoising, and learns neither of the others"
            )
        if process.clip is not None:
            raise ValueError(f"task.process.clip is {process.clip}: embeddings have no such limits, so set it to None")
        if not 0 <= self.drop <= 1:
            raise ValueError(f"task.drop is {self.drop}: expected at least 0 and at most 1")
        for name in ("embed", "text", "vector", "length", "layers", "heads", "head_dim"):
            if (value := getattr(self.net, name)) < 1:
                raise ValueError(f"task.net.{name} is {value}: expected 1 or more")
        check_dtype("task.net", self.net.dtype)

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Kept:
        """Reads the CLIP of a run; a new one copies it, and measures its embeddings."""
        if new and source is not None:
            kept_clip.keep(folder, self.clip, source)
        kept = kept_clip.read(folder)
        kept_clip.check_widths(self.net, kept, self.clip or folder)
        return kept

    def task(self, assets: Kept, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the prior."""
        length = assets.text.config.length
        empty = assets.tokenizer.encode("", length)
        network = imagine.network(self.net)

        def example(one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"image": one["image"], "tokens": assets.tokenizer.encode(one["caption"], length)}

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            params = dict(imagine.first(self.net, key))
            for name in _MEASURED:
                del params[name]
            return Variables(params, dict(loaded), self.process.init_extra())

        def apply(params: Params, x: Array, t: Array, cond: Any) -> Array:
            return network(self._weights(params, assets), x, t, cond)

        def loss(params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
            embed = kept_clip.embed(assets.image.config, known.frozen["image_encoder"], batch["image"])
            x0 = (embed - assets.mean[None]) / assets.deviation[None]
            gone = losses.dropped(keys, self.drop)
            tokens = jnp.where(gone[:, None], jnp.asarray(empty)[None], batch["tokens"])
            text = imagine.read(assets.text.config, known.frozen["text_encoder"], tokens)
            cond = jax.lax.stop_gradient(text)
            return self.process.loss(apply)(params, known, x0, cond, keys)

        load = lambda place: kept_clip.load(assets, _PARTS, place)
        return Task(init=init, loss=loss, example=example, load=load, absorb=self.process.absorb)

    def _weights(self, params: Params, assets: Kept) -> Params:
        """Returns the parameters as `models.prior` has them, with what was measured."""
        measured = zip(_MEASURED, (assets.mean, assets.deviation), strict=True)
        return {**params, **{name: jnp.asarray(x)[None] for name, x in measured}}

    def pipeline(self, assets: Kept, weights: Variables, spec: Spec = MeshSpec()) -> Any:
        """Refuses: a prior imagines embeddings, and draws no pictures."""
        raise ValueError(
            "this run is a prior, which draws no pictures: give the run of its decoder, or that one as then"
        )

    def bundle(self, assets: Kept, weights: Variables) -> Bundle:
        """Returns the prior, CLIP's towers and tokenizer, and the process."""
        process = self.process
        parts = {"prior": Component("PriorTransformer", {}, self.net, self._weights(weights.params, assets))}
        parts |= kept_clip.components(assets, weights.frozen)
        native = scheduler.native(
            process.make_schedule(),
            process.prediction,
            process.sampler(),
            process.grid(),
            clip=None,
            options=process.options(),
            says=process.says,
        )
        return Bundle("jaxdiff", {"clip": assets.clip}, parts, {"tokenizer": assets.tokenizer}, {}, native=native)
