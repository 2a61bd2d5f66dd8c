"""unCLIP's autoregressive prior: CLIP's embedding of a picture as codes, said one after another after its caption.

Components, ranges and dot products are measured over the data when a run begins. CLIP is frozen, as in `tasks.prior`,
and of some examples the caption is left out, for guidance; the dot product stays that of the caption.

WORKDIR/codes.safetensors    what was measured: see `models.causal_prior`

Source: Ramesh et al. 2022, arXiv 2204.06125, section 2.2.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.diffusion import loss as losses
from jaxdiff.models import causal_prior
from jaxdiff.models.causal_prior import CausalPrior, CausalPriorConfig
from jaxdiff.models.config import check_dtype
from jaxdiff.objectives import likelihood
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines import imagine
from jaxdiff.pretrained.files import read_safetensors, write_safetensors
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.tasks import kept_clip
from jaxdiff.tasks.kept_clip import Kept
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Task, Variables
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Cond, Key, Metrics, Params

_FILE = "codes.safetensors"
_PARTS = ("image_encoder", "text_encoder")


class Assets(NamedTuple):
    """Holds what a model is beside its numbers and weights.

    Attributes:
      kept: the CLIP, without its weights.
      measured: the parameters of `causal_prior.encode` and `decode`.
    """

    kept: Kept
    measured: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """An autoregressive prior.

    Attributes:
      net: numbers of the transformer, whose widths are CLIP's.
      clip: run of the task clip, or directory of a CLIPModel, that a new run takes.
      drop: probability that training leaves the caption out.
    """

    net: CausalPriorConfig = CausalPriorConfig()
    clip: Path | None = None
    drop: float = 0.1

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if not 0 <= self.drop <= 1:
            raise ValueError(f"task.drop is {self.drop}: expected at least 0 and at most 1")
        for name in ("embed", "text", "length", "kept", "bins", "width", "layers", "heads"):
            if (value := getattr(self.net, name)) < (least := 1 + (name == "bins")):
                raise ValueError(f"task.net.{name} is {value}: expected {least} or more")
        if self.net.width % self.net.heads:
            raise ValueError(f"task.net.width is {self.net.width}, which does not divide into {self.net.heads} heads")
        if self.net.kept > self.net.embed:
            raise ValueError(f"task.net.kept is {self.net.kept}: embeddings have {self.net.embed} components")
        check_dtype("task.net", self.net.dtype)

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads the CLIP and the codes of a run; a new one copies the one and measures the other."""
        if new and source is not None:
            kept_clip.keep(folder, self.clip, source)
        kept = kept_clip.read(folder)
        kept_clip.check_widths(self.net, kept, self.clip or folder)
        if new and source is not None:
            by_first(lambda: self._measure(folder, kept, source))
        if not (folder / _FILE).is_file():
            raise FileNotFoundError(
                f"{folder / _FILE} is missing, and the weights are of no use without it: put it back, or train in "
                "another workdir"
            )
        measured = {name: np.asarray(x) for name, x in read_safetensors(folder / _FILE).items()}
        if {name: x.shape for name, x in measured.items()} != causal_prior.shapes(self.net):
            raise ValueError(f"{folder / _FILE} is of other numbers than task.net: put the run's own file back")
        return Assets(kept, measured)

    def _measure(self, folder: Path, kept: Kept, source: Source) -> None:
        if not (folder / _FILE).is_file():
            part = folder / f".{_FILE}.part"
            write_safetensors(part, causal_prior.fit(*kept_clip.both(kept, source), self.net))
            part.replace(folder / _FILE)

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the prior."""
        kept, length = assets.kept, assets.kept.text.config.length
        empty = kept.tokenizer.encode("", length)
        measured = {name: jnp.asarray(x) for name, x in assets.measured.items()}

        def example(one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"image": one["image"], "tokens": kept.tokenizer.encode(one["caption"], length)}

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            text = imagine.read(kept.text.config, loaded["text_encoder"], jnp.zeros((1, length), jnp.int32))
            codes = jnp.zeros((1, self.net.kept), jnp.int32)
            params = CausalPrior(self.net).init(key, text, codes[:, 0], codes)["params"]
            return Variables({name: x for name, x in params.items() if name not in measured}, dict(loaded))

        def loss(params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
            embed = kept_clip.embed(kept.image.config, known.frozen["image_encoder"], batch["image"])
            heard = imagine.read(kept.text.config, known.frozen["text_encoder"], batch["tokens"])
            nothing = imagine.read(kept.text.config, known.frozen["text_encoder"], jnp.asarray(empty)[None])
            assert heard.pooled is not None
            share = causal_prior.nearness(measured, embed, heard.pooled)
            gone = losses.dropped(keys, self.drop)
            text = jax.lax.stop_gradient(_either(gone, nothing, heard))
            codes = causal_prior.encode(measured, embed, self.net.bins)
            logits: Any = CausalPrior(self.net).apply({"params": {**params, **measured}}, text, share, codes)
            return -likelihood.categorical(logits, codes).mean(), {"accuracy": (logits.argmax(-1) == codes).mean()}, {}

        return Task(init=init, loss=loss, example=example, load=lambda place: kept_clip.load(kept, _PARTS, place))

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> Any:
        """Refuses: a prior imagines embeddings, and draws no pictures."""
        raise ValueError(
            "this run is a prior, which draws no pictures: give the run of its decoder, or that one as then"
        )

    def bundle(self, assets: Assets, weights: Variables) -> Bundle:
        """Returns the prior with what was measured, CLIP's towers and tokenizer."""
        kept = assets.kept
        parts = {"prior": Component("CausalPrior", {}, self.net, {**weights.params, **assets.measured})}
        parts |= kept_clip.components(kept, weights.frozen)
        return Bundle("jaxdiff", {"clip": kept.clip}, parts, {"tokenizer": kept.tokenizer}, {})


def _either(gone: Array, nothing: Cond, text: Cond) -> Cond:
    """Returns `nothing` [1 ...] for those examples that are gone [b], and the text [b ...] of the others."""
    return jax.tree.map(lambda a, b: jnp.where(gone.reshape(-1, *[1] * (b.ndim - 1)), a, b), nothing, text)
