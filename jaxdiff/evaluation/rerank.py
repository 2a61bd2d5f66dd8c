"""The best of several pictures for a prompt, by how near their embeddings are, as DALL-E's were chosen.

Source: Ramesh et al. 2021, arXiv 2102.12092, section 2.6.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.evaluation import clip
from jaxdiff.tasks import clip as clip_task
from jaxdiff.typing import Key

Embed = Callable[[np.ndarray, Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""(uint8 [b h w 3], prompts) -> embeddings of pictures [b d], and of the prompts [b d]."""


def embedder(folder: Path | None) -> Embed | None:
    """Returns the embeddings of a run of the task clip, or of a directory with a CLIPModel; None: of none.

    Raises:
      FileNotFoundError, ValueError: if it is neither.
    """
    if folder is None:
        return None
    model = clip_task.read(folder)
    see, listen = clip.encoders(model, jax.device_count())

    def embed(pictures: np.ndarray, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.stack([model.tokenizer.encode(prompt, model.text.config.length) for prompt in prompts])
        return see(model.image.params, pictures), listen(model.text.params, tokens)

    return embed


def best_of(draw: Callable[[Key], Any], keys: Key, prompts: Sequence[str], count: int, embed: Embed | None) -> Any:
    """Returns the best of `count` draws, picture by picture.

    Args:
      draw: keys [b] -> a tree of arrays with the picture as first axis, the first of them uint8 [b h w 3].
      keys: one for each picture; draw n is of fold_in(key, n).
      prompts: one for each picture.
      count: how many draws; of one, the keys are used as they are.
      embed: gives embeddings, whose cosine decides.
    """
    if count == 1 or embed is None:
        return draw(keys)
    drawn = [
        jax.tree.map(np.asarray, draw(jax.vmap(lambda key, n=n: jax.random.fold_in(key, n))(keys)))
        for n in range(count)
    ]
    best = np.argmax([similarity(*embed(jax.tree.leaves(one)[0], prompts)) for one in drawn], 0)
    return jax.tree.map(lambda *parts: np.stack([parts[n][i] for i, n in enumerate(best)]), *drawn)


def similarity(pictures: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Returns the cosine [b] of embeddings [b d] of pictures and their prompts."""
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return (unit(np.asarray(pictures, np.float64)) * unit(np.asarray(prompts, np.float64))).sum(-1)
