"""Vectors of pictures and of captions under a CLIP model: of a run, or of a directory of transformers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.models.image_clip import ClipImage, prepare
from jaxdiff.models.text_clip import ClipText
from jaxdiff.parallel.spread import Spread
from jaxdiff.pretrained.clip_model import ClipParts
from jaxdiff.typing import Params


def encoders(clip: ClipParts, multiple: int) -> tuple[Spread, Spread]:
    """Returns functions from (parameters, pictures) and (parameters, tokens) to embeddings, `multiple` at once."""

    def see(params: Params, x: jax.Array) -> Any:
        x = prepare(x.astype(jnp.float32) / 255, clip.image.config.size)
        return ClipImage(clip.image.config).apply({"params": params}, x)[1]

    listen = lambda params, tokens: ClipText(clip.text.config).apply({"params": params}, tokens)[1]
    return Spread(see, "pmap", multiple=multiple), Spread(listen, "pmap", multiple=multiple)


def vectors(
    clip: ClipParts,
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
        seen.append(see(clip.image.params, batch))
        report(done := done + len(batch))
    different = list(dict.fromkeys(captions))
    heard = []
    for first in range(0, len(different), at_once):
        part = different[first : first + at_once]
        tokens = np.stack([clip.tokenizer.encode(caption, clip.text.config.length) for caption in part])
        heard.append(listen(clip.text.params, tokens))
    number = {caption: i for i, caption in enumerate(different)}
    return np.concatenate(seen), np.concatenate(heard)[[number[caption] for caption in captions]]
