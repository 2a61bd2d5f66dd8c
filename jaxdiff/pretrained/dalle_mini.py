"""Directories of DALL-E mini and mega, with the VQGAN that makes pictures of their tokens."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxdiff.data import tokenizer_bytes
from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.models.bart import BartConfig
from jaxdiff.pretrained import flax_file
from jaxdiff.pretrained.read import Bundle, read_component, read_json
from jaxdiff.pretrained.rules import dalle_mini as rules
from jaxdiff.pretrained.rules.fields import flag

KIND = "DalleMini"


def find(path: Path) -> Path | None:
    """Returns the folder of the transformer: a directory itself, or its folder `transformer`; None: there is none."""
    for folder in (path, path / "transformer"):
        config = folder / "config.json"
        if (
            config.is_file()
            and (folder / flax_file.NAME).is_file()
            and read_json(config).get("model_type") == "dallebart"
        ):
            return folder
    return None


def read(path: Path, vqgan: Path | None = None, *, dtype: Any = None, shardings: Any = None) -> Bundle:
    """Returns the transformer, the VQGAN and the tokenizer.

    Args:
      path: directory of the transformer, or one with folders transformer, vqgan and tokenizer.
      vqgan: directory of the VQGAN; None: the folder `vqgan` of `path`.
      dtype: dtype of the parameters; None keeps what the files have.
      shardings: tree of shapes -> tree of shardings.

    Raises:
      FileNotFoundError: if a part is missing; names the files.
      ValueError: for a config that is not supported, a broken file, or parts that do not fit each other.
    """
    folder, at = find(path), vqgan or path / "vqgan"
    if folder is None:
        raise FileNotFoundError(
            f"{path} is not a DALL-E mini: expected {flax_file.NAME}, and config.json of a dallebart"
        )
    if not (at / flax_file.NAME).is_file():
        raise FileNotFoundError(
            f"{at} has no {flax_file.NAME}: the VQGAN makes pictures of DALL-E mini's tokens; give its directory as "
            "--vqgan (dalle-mini/vqgan_imagenet_f16_16384 on the hub)"
        )
    how: dict[str, Any] = {"dtype": dtype, "shardings": shardings}
    stacked = flax_file.is_stacked(folder / flax_file.NAME)
    bart = read_component(folder, kind=rules.BART, mend=lambda json: {**json, "use_scan": stacked}, **how)
    vq = read_component(at, kind=rules.VQGAN, **how)
    net = _fitting(bart.config, vq.config, path)
    own = path / "tokenizer"
    tokenizer = tokenizer_bytes.read(own if own.is_dir() else folder)
    if (most := max(tokenizer.ids.values())) >= net.vocabulary:
        raise ValueError(f"{path}: the tokenizer has the id {most}, and the encoder knows {net.vocabulary} tokens")
    parts = {"transformer": dataclasses.replace(bart, config=net), "vqgan": vq}
    return Bundle(KIND, {}, parts, {"tokenizer": tokenizer}, {})


def _fitting(bart: BartConfig, vq: VQConfig, path: Path) -> BartConfig:
    """Returns the numbers of the transformer, which says the codes of that VQGAN.

    Raises:
      ValueError: if it cannot say them all, or its pictures are not square.
    """
    if vq.codes > bart.values:
        raise ValueError(
            f"{path} says {bart.values} tokens, and the VQGAN has {vq.codes} codes: give its own as --vqgan"
        )
    if int(bart.places**0.5) ** 2 != bart.places:
        raise ValueError(f"{path}: image_length={bart.places} is not supported, only squares")
    return dataclasses.replace(bart, codes=vq.codes)


def normalises(json: Any) -> bool:
    """Returns whether a transformer's captions are normalised first."""
    return bool(json.get("normalize_text", flag(False).default))
