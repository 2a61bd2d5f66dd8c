"""CLIP's text encoder, trained no further, whose states a network attends to; a run keeps a copy, and is a model so.

WORKDIR/text_encoder/, tokenizer/    as transformers writes them

Source: Saharia et al. 2022 (Imagen), arXiv 2205.11487, section 2.1; Rombach et al. 2022, arXiv 2112.10752.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.pipelines import encode, first_stage
from jaxdiff.pipelines.encode import Text
from jaxdiff.pretrained import clip_tokenizer
from jaxdiff.pretrained.read import Bundle, read_component
from jaxdiff.tasks import clip as clip_task
from jaxdiff.tasks import saved
from jaxdiff.training import Variables
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Params

PART = "text_encoder"


def keep(folder: Path, path: Path | None) -> None:
    """Copies the text encoder of a run of the task clip, or of a model's directory, into a new run.

    Raises:
      FileNotFoundError, ValueError: if there is none.
    """
    if path is None:
        raise ValueError(
            "task.condition is 'clip': give task.text_encoder, a run of the task clip or the directory of a model with "
            "CLIP's text_encoder and tokenizer"
        )
    if (path / "checkpoints").is_dir() and not (path / PART).is_dir():
        parts = clip_task.read(path)
        text = Text(parts.text, parts.tokenizer)
    else:
        encoder, words = first_stage.find_text(path)
        text = Text(read_component(encoder), clip_tokenizer.read(words))
    by_first(lambda: encode.write_text_encoder(folder, text))


def read(folder: Path) -> Text:
    """Reads what a run keeps, but for the weights.

    Raises:
      FileNotFoundError, ValueError: if a part is missing or damaged.
    """
    encoder, words = first_stage.find_text(folder)
    return Text(first_stage.outline(encoder), clip_tokenizer.read(words))


def load(folder: Path, place: Any) -> Params:
    """Reads the weights, where `place` puts them."""
    return saved.load_part(folder / PART, PART, place)


def tokens(text: Text, caption: str) -> Any:
    """Returns the ids [l] of a caption."""
    return text.tokenizer.encode(caption, text.encoder.config.length)


def states(text: Text, frozen: Params, ids: Any) -> Array:
    """Returns the states [b l d] of ids [b l]."""
    return first_stage.states(text.encoder, frozen[PART], jnp.asarray(ids))


def add(bundle: Bundle, text: Text, weights: Variables) -> None:
    """Adds the encoder and its tokenizer to a bundle."""
    bundle.components[PART] = dataclasses.replace(text.encoder, params=weights.frozen[PART])
    bundle.tokenizers["tokenizer"] = text.tokenizer
