"""Vectors of pictures and of captions under a CLIP model: of a run, or of a directory of transformers."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.models.image_clip import ClipImage, ClipImageConfig, prepare
from jaxdiff.models.text_clip import ClipText, ClipTextConfig
from jaxdiff.parallel.spread import Spread
from jaxdiff.tasks import clip as clip_task
from jaxdiff.typing import Params


@dataclasses.dataclass(frozen=True)
class Clip:
    """Both encoders of a CLIP model, with their tokenizer."""

    text: ClipTextConfig
    image: ClipImageConfig
    text_params: Params
    image_params: Params
    tokenizer: ClipTokenizer


def read(folder: Path) -> Clip:
    """Returns the model of a run of the task clip, or of a directory with a CLIPModel and its tokenizer.

    Raises:
      FileNotFoundError: if one is missing.
      ValueError: for a model of another kind, or tensors that do not fit.
    """
    found = clip_task.read(folder)
    return Clip(found.text.config, found.image.config, found.text.params, found.image.params, found.tokenizer)


def encoders(clip: Clip, multiple: int) -> tuple[Spread, Spread]:
    """Returns functions from (parameters, pictures) and (parameters, tokens) to embeddings, `multiple` at once."""

    def see(params: Params, x: jax.Array) -> Any:
        x = prepare(x.astype(jnp.float32) / 255, clip.image.size)
        return ClipImage(clip.image).apply({"params": params}, x)[1]

    listen = lambda params, tokens: ClipText(clip.text).apply({"params": params}, tokens)[1]
    return Spread(see, "pmap", multiple=multiple), Spread(listen, "pmap", multiple=multiple)


def vectors(
    clip: Clip,
    pictures: Pictures,
    captions: Sequence[str],
    batch_size: int = 16,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Returns the embeddings of pictures and their captions; each different caption is read once.

    Raises:
      ValueError: if there are not as many captions as pictures.
    """
    if len(captions) != pictures.count:
        raise ValueError(f"{pictures.count} pictures and {len(captions)} captions: expected one for each")
    at_once = batch_size * jax.device_count()
    see, listen = encoders(clip, at_once)
    seen, done = [], 0
    for batch in pictures.batches(at_once):
        seen.append(see(clip.image_params, batch))
        report(done := done + len(batch))
    different = list(dict.fromkeys(captions))
    heard = []
    for first in range(0, len(different), at_once):
        part = different[first : first + at_once]
        tokens = np.stack([clip.tokenizer.encode(caption, clip.text.length) for caption in part])
        heard.append(listen(clip.text_params, tokens))
    number = {caption: i for i, caption in enumerate(different)}
    return np.concatenate(seen), np.concatenate(heard)[[number[caption] for caption in captions]]
