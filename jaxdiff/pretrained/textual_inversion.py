"""Textual inversion: new words for the prompt, each a few learned vectors in the text encoder's table of tokens.

Source: Gal et al. 2022, arXiv 2208.01618.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxdiff.data.tokenizer_clip import END
from jaxdiff.pretrained import files
from jaxdiff.pretrained.read import Bundle

_SDXL = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


def read(path: Path | str) -> dict[str, np.ndarray]:
    """The vectors [n, width] of a file by the word, or as SDXL's files name them, clip_l and clip_g.

    Raises:
      ValueError: if the file holds no vectors.
    """
    tensors = files.read_tensors(path)
    prefix = "string_to_param."  # of the web UI's files, where the word is always *
    if any(name.startswith(prefix) for name in tensors):
        tensors = {Path(path).stem: x for name, x in tensors.items() if name.startswith(prefix)}
    if not tensors or any(len(x.shape) not in (1, 2) for x in tensors.values()):
        raise ValueError(f"{path} holds no textual inversion: expected vectors [width] or [n, width]")
    return {name: np.atleast_2d(np.asarray(x)) for name, x in tensors.items()}


def add(bundle: Bundle, path: Path | str, word: str | None = None) -> Bundle:
    """The bundle whose prompts may say `word`.

    Args:
      bundle: a pipeline with text encoders.
      path: what diffusers or the web UI saves.
      word: None takes the file's.

    Raises:
      ValueError: if the file holds several words, the tokenizer knows the word, or no text encoder has that width.
    """
    found = read(path)
    by_encoder = {encoder: found[name] for encoder, name in _SDXL.items() if name in found}
    if not by_encoder:
        if len(found) > 1:
            raise ValueError(f"{path} holds several words: {', '.join(found)}; split it into a file for each")
        ((name, vectors),) = found.items()
        word = word or name
        by_encoder = {
            encoder: vectors
            for encoder, part in bundle.components.items()
            if encoder.startswith("text_encoder") and part.config.width == vectors.shape[1]
        }
        if not by_encoder:
            raise ValueError(f"{path} has vectors of width {vectors.shape[1]}, which no text encoder here has")
    word = word or Path(path).stem
    components, tokenizers = dict(bundle.components), dict(bundle.tokenizers)
    for encoder, vectors in by_encoder.items():
        part, name = components[encoder], encoder.replace("text_encoder", "tokenizer")
        table = part.params["token_embed"]["embedding"]
        if vectors.shape[1] != table.shape[1]:
            raise ValueError(
                f"{path} has vectors of width {vectors.shape[1]} for {encoder}, whose width is {table.shape[1]}"
            )
        tokenizers[name] = tokenizers[name].with_word(word, len(vectors))
        # ids count from the tokenizer's size, which may be below the table's
        start = tokenizers[name].added[word][0]
        table = jnp.concatenate([table[:start], vectors.astype(table.dtype)])
        params = {**part.params, "token_embed": {"embedding": table}}
        # a new word has the largest id, so the end can no longer be told by that
        config = dataclasses.replace(part.config, vocabulary=len(table), end=tokenizers[name].ids[END])
        json = {**part.json, "vocab_size": len(table), "eos_token_id": config.end}
        components[encoder] = dataclasses.replace(part, params=params, config=config, json=json)
    return dataclasses.replace(bundle, components=components, tokenizers=tokenizers)


def write(path: Path | str, word: str, vectors: np.ndarray) -> None:
    """One word's vectors [n, width] as diffusers saves them."""
    files.write_safetensors(path, {word: np.asarray(vectors)})
