"""CLIP: a tower for pictures and one for texts, whose vectors are near where a text says what a picture shows.

The contrast is of the whole batch, on all devices (`objectives.contrastive`), so the loss is no mean over examples: to
work through a batch in parts would be another loss, and is refused.

Held-out pictures tell R-precision: how often a picture's own caption is the nearest of 100, or of the batch where it is
smaller. A run's towers and its tokenizer are laid out as the published ones.

Source: Radford et al. 2021, arXiv 2103.00020, sections 2.3 to 2.5.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data import tokenizer_clip
from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.models.config import check_dtype
from jaxdiff.models.image_clip import ClipImage, ClipImageConfig, normalised
from jaxdiff.models.text_clip import ACTIVATIONS, ClipText, ClipTextConfig
from jaxdiff.objectives import contrastive
from jaxdiff.parallel import MeshSpec
from jaxdiff.parallel.compile import DEVICES
from jaxdiff.pipelines import first_stage
from jaxdiff.pretrained import clip_model, clip_tokenizer
from jaxdiff.pretrained.clip_model import ClipParts
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import clip as rules
from jaxdiff.tasks import saved
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Task, Variables
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Key, Metrics, Params

_FIRST_SCALE = 1 / 0.07
_CANDIDATES = 100


class Assets(NamedTuple):
    """Holds what a model is beside its numbers and weights."""

    size: int
    tokenizer: ClipTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Two towers.

    Attributes:
      image: numbers of the tower of pictures, whose `size` is that of the data.
      text: numbers of the tower of texts; `end` is None, so that the largest id of a text ends it, as the vocabulary
        has it.
      vocabulary: largest size of the byte-pair vocabulary, which is learned from the captions.
    """

    image: ClipImageConfig = ClipImageConfig()
    text: ClipTextConfig = ClipTextConfig(projection=768, end=None)
    vocabulary: int = 49408

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        for name, net in (("image", self.image), ("text", self.text)):
            for field in dataclasses.fields(net):
                least, value = {"length": 2}.get(field.name, 1), getattr(net, field.name)
                if field.name not in ("end", "eps", "activation", "dtype") and value < least:
                    raise ValueError(f"task.{name}.{field.name} is {value}: expected {least} or more")
            if not 0 < net.eps < math.inf:
                raise ValueError(f"task.{name}.eps is {net.eps}: expected a number above 0")
            if net.activation not in ACTIVATIONS:
                raise ValueError(
                    f"task.{name}.activation is {net.activation!r}: expected one of {', '.join(ACTIVATIONS)}"
                )
            if net.width % net.heads:
                raise ValueError(f"task.{name}.width is {net.width}, which does not divide into {net.heads} heads")
            check_dtype(f"task.{name}", net.dtype)
        if self.image.size != data.size or data.size % self.image.patch:
            raise ValueError(
                f"task.image.size is {self.image.size} and task.image.patch {self.image.patch}: expected data.size "
                f"{data.size}, and a divisor of it"
            )
        if self.image.projection != self.text.projection:
            raise ValueError(
                f"task.image.projection is {self.image.projection} and task.text.projection {self.text.projection}: "
                "expected the same width, that of the vectors"
            )
        if self.text.end is not None:
            raise ValueError(f"task.text.end is {self.text.end}: leave it at None, the largest id ends a text")
        if self.text.vocabulary < self.vocabulary:
            raise ValueError(
                f"task.text.vocabulary is {self.text.vocabulary}, below task.vocabulary {self.vocabulary}: raise it"
            )
        tokenizer_clip.learn(("ab",), self.vocabulary)  # refuses a size too small

    def check_batch(self, batch_size: int, parts: int) -> None:
        """Refuses a batch of one, which has nothing to contrast, and parts, whose contrast does not span the batch."""
        if batch_size < 2:
            raise ValueError(f"train.batch_size is {batch_size}: one picture has no other text; give 2 or more")
        if parts > 1:
            raise ValueError(
                f"train.accumulate is {parts}: a contrast spans the whole batch, and a part would see only its own; "
                "set it to 1, and split the batch over more devices instead"
            )

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads the vocabulary in the folder `tokenizer` of a run, or learns it from the captions."""
        place = folder / "tokenizer"
        if new and source is not None:
            vocabulary = tokenizer_clip.learn(source.captions(), self.vocabulary)
            write = lambda at: tokenizer_clip.write(vocabulary, at, self.text.length)
            by_first(lambda: first_stage.write_once(place, write))
        if not place.is_dir():
            raise FileNotFoundError(f"{place} is missing, and the weights are of no use without it: put it back")
        tokenizer = clip_tokenizer.read(place)
        if tokenizer.size > self.text.vocabulary:
            raise ValueError(
                f"{place} has {tokenizer.size} ids and task.text.vocabulary is {self.text.vocabulary}: put the run's "
                "own back"
            )
        return Assets(data.size, tokenizer)

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of both towers."""
        mapped = contrastive.over(DEVICES) if spec == "pmap" else (contrastive.whole, jnp.arange)

        def example(one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"image": one["image"], "tokens": assets.tokenizer.encode(one["caption"], self.text.length)}

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            of_image, of_text = jax.random.split(key)
            pixels = jnp.zeros((1, self.image.size, self.image.size, 3))
            tokens = jnp.zeros((1, self.text.length), jnp.int32)
            params: dict[str, Any] = {
                "image": ClipImage(self.image).init(of_image, pixels)["params"],
                "text": ClipText(self.text).init(of_text, tokens)["params"],
                "log_scale": jnp.log(_FIRST_SCALE),
            }
            return Variables(params)

        def vectors(params: Params, batch: Batch) -> tuple[Array, Array]:
            seen: Any = ClipImage(self.image).apply(
                {"params": params["image"]}, normalised(batch["image"].astype(jnp.float32) / 255)
            )
            read: Any = ClipText(self.text).apply({"params": params["text"]}, batch["tokens"])
            return contrastive.unit(seen[1]), contrastive.unit(read[1])

        def loss(params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
            x, y = vectors(params, batch)
            scale = contrastive.scale(params["log_scale"])
            value, nearest = contrastive.contrast(x, y, scale, *mapped)
            return value, {"accuracy": nearest.mean(), "scale": scale}, {}

        def held_out(params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
            x, y = vectors(params, batch)
            gather, own = mapped
            value, nearest = contrastive.contrast(x, y, contrastive.scale(params["log_scale"]), *mapped)
            texts, place, tokens = gather(y), own(len(x)), gather(batch["tokens"])
            same = (batch["tokens"][:, None] == tokens[None]).all(2)
            count = min(_CANDIDATES, len(texts))
            hits = contrastive.precision(x, texts, same, place, count)
            return value, {"accuracy": nearest.mean(), f"r_precision_{count}": hits.mean()}, {}

        return Task(init=init, loss=loss, held_out=held_out, example=example)

    def bundle(self, assets: Assets, weights: Variables) -> Bundle:
        """Returns both towers with their projections, and the tokenizer, as transformers has them."""
        params, parts = weights.params, dict[str, Component]()
        parts["image_encoder"] = Component(clip_model.IMAGE, rules.image_json(self.image), self.image, params["image"])
        parts["text_encoder"] = Component(clip_model.TEXT, rules.text_json(self.text), self.text, params["text"])
        return Bundle("jaxdiff", {}, parts, {"tokenizer": assets.tokenizer}, {})


def read(path: Path) -> ClipParts:
    """Reads a CLIP: of a run of this task or of one that stands on it, or of a directory of transformers.

    Raises:
      FileNotFoundError: if there is none, or a run has no checkpoint yet.
      ValueError: if a run is of another task, or files are damaged.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no CLIP at {path}: give a run of the task clip, or a CLIPModel's directory")
    config = saved.folder_of(path) / "config.json"
    if (path / "image_encoder").is_dir() or not config.is_file() or "task" not in saved.read_json(config):
        return clip_model.read(path)
    run = saved.open_saved(path)
    if not isinstance(run.config, Config):
        kind = type(run.config).__module__.rsplit(".")[-1]
        raise ValueError(
            f"{path} is a run of the task {kind}: expected one of the task clip, or a CLIPModel's directory"
        )
    bundle = run.config.bundle(run.assets, run.weights)
    return ClipParts(
        bundle.components["image_encoder"], bundle.components["text_encoder"], bundle.tokenizers["tokenizer"]
    )
