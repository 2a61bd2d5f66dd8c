"""Textual inversion: new words for the prompt, each a few learned vectors in the text encoder's table of tokens.

What a file calls its vectors depends on who wrote it, and so does the word:

    diffusers                {WORD: [width] or [n, width]}
    SDXL                     {"clip_l": [n, 768], "clip_g": [n, 1280]}; the word is the file's name
    AUTOMATIC1111, ComfyUI   {"emb_params": [n, width]}, or {"string_to_param": {"*": [n, width]}}; the file's name
    PyTorch                  one tensor by itself; the file's name

Source: Gal et al. 2022, arXiv 2208.01618.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.tokenizer_clip import END, ClipTokenizer
from jaxdiff.pretrained import files
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.widths import of_text
from jaxdiff.typing import Params

_SDXL = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
_UNNAMED = ("", "*", "emb_params", "string_to_param.*")
_SAVED = ("learned_embeds.safetensors", "learned_embeds.bin")


def parse(text: Path | str) -> tuple[Path, str | None]:
    """Splits PATH:WORD into the file and its word; a PATH alone, also one with a colon in it, has None.

    Raises:
      ValueError: if nothing follows the colon.
    """
    text = str(text)
    if not Path(text).exists():
        for at, sign in enumerate(text):
            if sign == ":" and Path(text[:at]).exists():
                if not text[at + 1 :].strip():
                    raise ValueError(f"{text} names no word: write PATH:WORD, or PATH for the file's own word")
                return Path(text[:at]), text[at + 1 :]
    return Path(text), None


def read(path: Path | str) -> tuple[str, dict[str, np.ndarray]]:
    """Returns the word of a file, and its vectors [n, width] by text encoder.

    `""` where the file does not say for which.

    Args:
      path: the file, or a directory with learned_embeds.safetensors or .bin.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if the file holds no vectors, several words, or vectors that are not finite.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no textual inversion at {path}")
    if path.is_dir():
        found = next((path / name for name in _SAVED if (path / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"no textual inversion in {path}: expected {' or '.join(_SAVED)}")
        return read(found)
    tensors = files.read_tensors(path, bare="")
    if any(name.startswith("string_to_param.") for name in tensors):  # beside it lies the number of the web UI's token
        tensors = {name: x for name, x in tensors.items() if not name.startswith("string_to_token.")}
    wrong = [name for name, x in tensors.items() if len(x.shape) not in (1, 2) or 0 in x.shape or x.dtype.kind in "iub"]
    if not tensors or wrong:
        described = (
            f"{wrong[0]!r} is {tensors[wrong[0]].shape} of {tensors[wrong[0]].dtype}" if wrong else "it is empty"
        )
        raise ValueError(f"{path} holds no textual inversion: expected vectors [width] or [n, width], {described}")
    vectors = {name: np.atleast_2d(np.asarray(x)) for name, x in tensors.items()}
    if bad := [name for name, x in vectors.items() if not np.isfinite(x.astype(np.float32)).all()]:
        raise ValueError(f"{path}: the vectors of {bad[0]!r} are not finite: damaged, or a failed training")
    if vectors.keys() <= _SDXL.keys():
        return path.stem, {_SDXL[name]: x for name, x in vectors.items()}
    if len(vectors) > 1:
        names = ", ".join([*vectors][:10]) + (", ..." if len(vectors) > 10 else "")
        raise ValueError(f"{path} holds several words ({len(vectors)}): {names}; split it into a file for each")
    ((name, x),) = vectors.items()
    return path.stem if name in _UNNAMED else name.removeprefix("string_to_param."), {"": x}


def add(bundle: Bundle, path: Path | str, word: str | None = None) -> Bundle:
    """Returns the bundle whose prompts may say `word`, in upper or lower case.

    Args:
      bundle: a pipeline with text encoders.
      path: a file of one of the module's layouts, or FILE:WORD.
      word: None takes what `path` says, else the file's own.

    Raises:
      ValueError: if the file is none, the tokenizer knows the word, or no text encoder has that width.
    """
    path, said = parse(path)
    own, found = read(path)
    word = word or said or own
    vectors = _by_encoder(bundle, found, path)
    for encoder in vectors:
        if encoder.replace("text_encoder", "tokenizer") not in bundle.tokenizers:
            raise ValueError(f"{path} needs the tokenizer of {encoder}, which this model lacks")
        if not isinstance(bundle.tokenizers[encoder.replace("text_encoder", "tokenizer")], ClipTokenizer):
            raise ValueError(f"{path} is a word for CLIP's tokenizer, and {encoder} of {bundle.kind} has another")
    try:
        return with_word(bundle, word, vectors)
    except KnownWordError as error:
        raise ValueError(f"{path}: {error}, as {path}:WORD") from None


class KnownWordError(ValueError):
    """A word that is none, or that a tokenizer has already."""


def with_word(bundle: Bundle, word: str, vectors: Mapping[str, Any]) -> Bundle:
    """Returns the bundle whose prompts may say `word`, with these vectors [n, width] by text encoder.

    Where parameters are shapes, they stay so.

    Raises:
      KnownWordError: if a tokenizer knows the word.
      ValueError: if a table ends before the tokenizer's ids.
    """
    components, tokenizers = dict(bundle.components), dict(bundle.tokenizers)
    for encoder, own in vectors.items():
        part, name = components[encoder], encoder.replace("text_encoder", "tokenizer")
        try:
            tokenizers[name] = tokenizers[name].with_word(word, len(own))
        except ValueError as error:
            raise KnownWordError(str(error)) from None
        table = part.params["token_embed"]["embedding"]
        # ids count from the tokenizer's size, which may be below the table's
        start = tokenizers[name].size - len(own)
        if start > table.shape[0]:
            count = table.shape[0]
            raise ValueError(f"{encoder} has vectors for {count} tokens, but its tokenizer has {start} tokens")
        params = with_rows(part.params, start, own)
        # a new word has the largest id, so the end can no longer be found by that
        count = start + len(own)
        config = dataclasses.replace(part.config, vocabulary=count, end=tokenizers[name].ids[END])
        json = {**part.json, "vocab_size": count, "eos_token_id": config.end}
        components[encoder] = dataclasses.replace(part, params=params, config=config, json=json)
    return dataclasses.replace(bundle, components=components, tokenizers=tokenizers)


def with_rows(params: Params, start: int, vectors: Any) -> dict[str, Any]:
    """Returns a text encoder's parameters, or their shapes, with vectors [n, width] in its table from row `start`."""
    join = lambda table: jnp.concatenate([table[:start], jnp.asarray(vectors).astype(table.dtype)])
    table = params["token_embed"]["embedding"]
    joined = jax.eval_shape(join, table) if isinstance(table, jax.ShapeDtypeStruct) else join(table)
    return {**params, "token_embed": {"embedding": joined}}


def _by_encoder(bundle: Bundle, found: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Returns the vectors of each text encoder of the model.

    Raises:
      ValueError: if they do not fit; says which model they are for, and which this is.
    """
    widths = {name: part.config.width for name, part in bundle.components.items() if name.startswith("text_encoder")}
    if not widths:
        raise ValueError(f"{path} is a textual inversion: this model ({bundle.kind}) has no text encoder")
    here = " and ".join(map(of_text, widths.values()))
    if "" in found:
        width = found[""].shape[1]
        if any(own != width for own in widths.values()):
            raise ValueError(f"{path} has vectors of width {of_text(width)}: the text encoders here have {here}")
        return dict.fromkeys(widths, found[""])
    # SDXL's refiner has the second encoder alone
    fitting = {name: x for name, x in found.items() if name in widths}
    if not fitting or (found.keys() - widths.keys() and "text_encoder_2" not in widths):
        raise ValueError(
            f"{path} has vectors for {' and '.join(sorted(found))} (SDXL): the text encoders here have {here}"
        )
    for name, x in fitting.items():
        if x.shape[1] != widths[name]:
            raise ValueError(
                f"{path} has vectors of width {of_text(x.shape[1])} for {name}, which has {of_text(widths[name])}"
            )
    return fitting


def write(path: Path | str, word: str, vectors: Any, note: Mapping[str, str] | None = None) -> None:
    """Writes one word's vectors [n, width] as diffusers saves them; {encoder: vectors} as SDXL's tools do."""
    if isinstance(vectors, Mapping):
        names = {encoder: name for name, encoder in _SDXL.items()}
        tensors = {names[encoder]: np.asarray(x) for encoder, x in vectors.items()}
    else:
        tensors = {word: np.asarray(vectors)}
    files.write_safetensors(path, tensors, note)
