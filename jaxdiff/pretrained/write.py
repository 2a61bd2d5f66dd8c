"""Writes networks as diffusers does: folders of config.json and safetensors, and model_index.json above them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdiff.pretrained import files
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import to_tensors

SHARD = 10 * 2**30
"""Bytes of the largest file; larger models are split, as diffusers splits them."""


def write_directory(bundle: Bundle, path: Path | str, source: Path | str | None = None, shard: int = SHARD) -> None:
    """A pipeline directory that diffusers and `read_directory` read.

    Args:
      bundle: what to write.
      path: the new directory.
      source: the directory it was read from; what holds no parameters (tokenizers) is copied from there.
      shard: bytes of the largest file.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    index = {name: [None, None] if name in bundle.skipped else entry for name, entry in bundle.index.items()}
    _write_json(path / "model_index.json", index)
    for name, component in bundle.components.items():
        write_component(component, path / name, shard)
    for name, config in bundle.schedulers.items():
        (path / name).mkdir(exist_ok=True)
        _write_json(path / name / "scheduler_config.json", config)
    for folder in sorted(Path(source).iterdir()) if source else ():
        if folder.is_dir() and folder.name.startswith(("tokenizer", "feature_extractor", "image_processor")):
            shutil.copytree(folder, path / folder.name, dirs_exist_ok=True)


def write_component(component: Component, path: Path | str, shard: int = SHARD) -> None:
    """The folder of one network: config.json as it was read, and the parameters, one at a time."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    _write_json(path / "config.json", component.json)
    one = family(component.kind)
    tensors = to_tensors(component.params, one.rules(component.config, component.json))
    files.write_sharded(path, one.stem, tensors, shard)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
