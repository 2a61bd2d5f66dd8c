"""unCLIP's decoder: pictures from CLIP's embedding of a picture, and from text, a class, or nothing beside it.

Training tells the U-Net the embedding of the very picture by a frozen CLIP, as tokens, beside the time, or both.
A tenth of the examples get CLIP's embedding of a picture of zeros instead, and half no text, each by itself.
Sampling tells it what a prior imagines (`task.prior`), or the embedding of a picture that is to be varied.

Source: Ramesh et al. 2022, arXiv 2204.06125, section 2.1 (there a tenth gets zeros or a learned embedding).
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdiff.data.source import DataConfig, Source
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.diffusion import draws
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pipelines import imagine
from jaxdiff.pretrained.read import Bundle, read_component
from jaxdiff.tasks import described, kept_clip, picture, saved
from jaxdiff.tasks.kept_clip import Kept
from jaxdiff.training import OptimizerConfig, Variables
from jaxdiff.typing import Batch, Cond, Key, Params

_PART = "image_encoder"


class Assets(NamedTuple):
    """Holds what a model is beside its numbers and weights.

    Attributes:
      size: side of the pictures.
      kept: the CLIP, without its weights.
      vocabulary: vocabulary of a model that reads text.
      labels: names of the classes, of a model that knows classes.
      shown: embeddings [n e] that previews draw, and what stands in their place without one [1 e].
    """

    size: int
    kept: Kept
    vocabulary: BytePair | None = None
    labels: tuple[str, ...] = ()
    shown: tuple[np.ndarray, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(picture.Config):
    """Diffusion on pixels, conditioned on CLIP's embedding of the picture.

    Attributes:
      drop: probability that training leaves the caption or class out.
      drop_embed: probability that training leaves the embedding out.
      clip: run of the task clip, or directory of a CLIPModel, that a new run takes.
      prior: run of the task prior, on the same CLIP, which `jaxdiff sample` then runs first.
    """

    net: UNetConfig = UNetConfig(
        attention=("none", "cross", "cross", "cross"),
        mid_attention="cross",
        pooled=True,
        addition="image",
        tokens="text_image",
        context_width=512,
    )
    drop: float = 0.5
    drop_embed: float = 0.1
    clip: Path | None = None
    prior: Path | None = None

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        net, text = self.net, self.condition == "text"
        if net.addition not in ("", "image") or "image" not in (net.addition, net.tokens.removeprefix("text_")):
            raise ValueError(
                f"task.net.addition is {net.addition!r} and task.net.tokens {net.tokens!r}: an embedding is read "
                "beside the time by addition 'image', as tokens by tokens 'image' or, with text, 'text_image': give one"
            )
        if net.tokens not in ("", "image", *(["text", "text_image"] if text else [])):
            raise ValueError(f"task.net.tokens is {net.tokens!r} and task.condition {self.condition!r}: it has no text")
        if self.condition == "clip":
            raise ValueError("task.condition is 'clip': a decoder's text encoder is trained with it, give 'text'")
        if not 0 <= self.drop_embed <= 1:
            raise ValueError(f"task.drop_embed is {self.drop_embed}: expected at least 0 and at most 1")
        if self.teacher is not None:
            raise ValueError("task.teacher is given: a decoder of embeddings has none, so leave it out")

    def follows(self, image: bool = False) -> Path | None:
        """Returns the run of the prior."""
        return self.prior

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Any:
        """Reads the CLIP of a run, and its vocabulary or classes; a new one copies or makes them.

        Raises:
          ValueError: if the prior stands on another CLIP.
        """
        plain = super().assets(folder, data, source, new=new)
        if new and source is not None:
            kept_clip.keep(folder, self.clip, source)
        kept = kept_clip.read(folder)
        if self.prior and (other := kept_clip.hash_of(saved.folder_of(self.prior))) not in ("", kept.clip):
            raise ValueError(
                f"task.prior is {self.prior}, which stands on another CLIP ({other[:12]}) than {self.clip or folder} "
                f"({kept.clip[:12]}): give the same one"
            )
        assets = Assets(data.size, kept, plain.vocabulary, plain.labels)
        if source is None or not self.preview.prompts:
            return assets
        part = read_component(folder / _PART)
        images = described.images(source, self.condition, assets.labels, self.preview.prompts)
        seen = kept_clip.embeddings(part, images)
        away = np.asarray(imagine.nothing({_PART: part.config}, {_PART: part.params}, jnp.asarray(seen)))
        return assets._replace(shown=(seen, away))

    def _kept(self, assets: Any, place: Any) -> Params:
        return kept_clip.load(assets.kept, (_PART,), place)

    def _drawn(self, assets: Any, frozen: Params, batch: Batch, keys: Key) -> Batch:
        net = assets.kept.image.config
        embed = kept_clip.embed(net, frozen[_PART], batch["image"])
        gone = draws.uniform(draws.fold(keys, draws.AUGMENT)) < self.drop_embed
        return {**batch, "embed": jnp.where(gone[:, None], imagine.nothing({_PART: net}, frozen, embed), embed)}

    def _cond(self, assets: Any, params: Params, frozen: Params, batch: Batch) -> Cond:
        return dataclasses.replace(super()._cond(assets, params, frozen, batch), embed=batch["embed"])

    def bundle(self, assets: Any, weights: Variables) -> Bundle:
        """Returns the U-Net, the text encoder and the process, as every pipeline takes them."""
        return dataclasses.replace(super().bundle(assets, weights), index={"clip": assets.kept.clip})

    def _preview_inputs(self, assets: Any) -> dict[str, Any]:
        return dict(zip(("embed", "no_embed"), assets.shown, strict=True))
