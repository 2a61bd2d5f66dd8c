"""Writes networks as diffusers does: folders of config.json and safetensors, and model_index.json above them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdiff.data import tokenizer_clip
from jaxdiff.data.tokenizer_bert import WordPiece
from jaxdiff.data.tokenizer_bytes import ByteTokenizer
from jaxdiff.data.tokenizer_unigram import Unigram
from jaxdiff.pretrained import files, flax_file
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import to_tensors

SHARD = 10 * 2**30
"""Bytes of the largest file; larger models are split, as diffusers splits them."""

VERSION = "0.42.1"
"""The version of diffusers that a directory says it is of, which its inpainting pipelines ask for."""


def write_directory(bundle: Bundle, path: Path | str, source: Path | str | None = None, shard: int = SHARD) -> None:
    """Writes a directory that diffusers and `read_directory` read; of networks by themselves, only their folders.

    Args:
      bundle: what to write.
      path: the new directory.
      source: the directory it was read from; how its pictures are prepared for CLIP is copied from there.
      shard: bytes of the largest file.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if bundle.index:
        _write_json(path / "model_index.json", _index(bundle))
    for name, component in bundle.components.items():
        write_component(component, path / name, shard)
    for name, config in bundle.schedulers.items():
        (path / name).mkdir(exist_ok=True)
        _write_json(path / name / "scheduler_config.json", config)
    for name, tokenizer in bundle.tokenizers.items():
        text = bundle.components.get(name.replace("tokenizer", "text_encoder"))
        if isinstance(tokenizer, Unigram | WordPiece | ByteTokenizer):
            tokenizer.write(path / name)
        else:
            tokenizer_clip.write(tokenizer, path / name, text.config.length if text else 77)
    for name in ("feature_extractor", "image_processor", "prior_image_processor"):
        if source and (Path(source) / name).is_dir():
            shutil.copytree(Path(source) / name, path / name, dirs_exist_ok=True)


def write_component(component: Component, path: Path | str, shard: int = SHARD) -> None:
    """Writes the folder of one network: config.json as it was read (with its class), and the parameters."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    named = component.json.keys() & {"_class_name", "architectures"}
    _write_json(path / "config.json", component.json if named else {"_class_name": component.kind, **component.json})
    one = family(component.kind)
    tensors = to_tensors(component.params, one.rules(component.config, component.json))
    if one.stem == flax_file.STEM:
        flax_file.write(path / flax_file.NAME, tensors, stacked=component.json.get("use_scan") is not False)
    else:
        files.write_sharded(path, one.stem, tensors, shard)


def _index(bundle: Bundle) -> dict[str, Any]:
    """Returns model_index.json: without what was skipped, and with what has taken its place."""
    index = {"_diffusers_version": VERSION, **bundle.index, **{name: [None, None] for name in bundle.skipped}}
    for name, part in bundle.components.items():
        if index.get(name, [None, None])[1] != part.kind:
            index[name] = ["transformers" if part.kind.startswith(("CLIP", "T5")) else "diffusers", part.kind]
    return index


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
