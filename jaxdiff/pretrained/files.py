"""Files of tensors: safetensors, written and read, whole or in shards; and which files hold a model's weights.

A safetensors file is 8 bytes n, n bytes of JSON {name: {dtype, shape, data_offsets}}, and the arrays one after
another. Reading takes one array at a time from the file, without a memory map: mapped pages would count as memory.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxdiff.pretrained import torch_file
from jaxdiff.pretrained.rules import Stored, few

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""What diffusers and transformers call the file of a model's weights."""


LONGEST_HEADER = 100 * 10**6
"""Bytes of a safetensors header; the reference refuses longer ones too."""


class FileError(ValueError):
    """A file that is not what its name says, or ends early; the message says which and how."""


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON file that holds an object.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is not JSON, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FileError(f"{path} holds a {type(value).__name__}, expected an object with fields")
    return value


def read_safetensors(path: Path | str) -> dict[str, Stored]:
    """Returns the tensors of a file, each read when it is asked for.

    Raises:
      FileError: if the file is not a safetensors file, shorter or longer than its header says, or its tensors overlap.
    """
    path = Path(path)
    header, start = _header(path)
    size = path.stat().st_size
    tensors, places = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _entry(path, name, entry)
        if start + end > size:
            raise FileError(f"{path} is truncated: it has {size} bytes, but {few([name])} ends at {start + end}")
        places.append((begin, end, name))
        tensors[name] = Stored(shape, dtype, functools.partial(_read, path, dtype, shape, start + begin))
    reached = 0
    for begin, end, name in sorted(places):
        if begin != reached:
            raise FileError(f"{path}: {few([name])} begins at byte {begin}, and what is before it ends at {reached}")
        reached = end
    if start + reached != size:
        raise FileError(f"{path} has {size} bytes, but its tensors end at {start + reached}")
    return tensors


def _entry(path: Path, name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Returns the type, shape, first and last byte of a tensor, checked."""
    fields = entry if isinstance(entry, dict) else {}
    named: list[Any] = [fields.get(field) for field in ("dtype", "shape", "data_offsets")]
    kind, shape, offsets = named
    if kind not in list(_DTYPES):
        raise FileError(f"{path}: {few([name])} is of dtype {str(kind)[:40]}, known are {', '.join(_DTYPES)}")
    counts = lambda x: isinstance(x, list) and all(type(n) is int and n >= 0 for n in x)
    if not counts(shape) or not counts(offsets) or len(offsets) != 2 or len(shape) > 32:
        raise FileError(
            f"{path}: {few([name])} has shape {str(shape)[:60]} and data_offsets {str(offsets)[:60]}: expected whole "
            "numbers of at least 0"
        )
    dtype, (begin, end) = _DTYPES[kind], offsets
    if end - begin != _bytes(shape, dtype):
        needed = _bytes(shape, dtype)
        raise FileError(f"{path}: {few([name])} {tuple(shape)} of {dtype} needs {needed} bytes, not {end - begin}")
    return dtype, tuple(shape), begin, end


def metadata(path: Path | str) -> dict[str, str]:
    """Returns the strings that a safetensors file carries beside its tensors."""
    note = _header(Path(path))[0].get("__metadata__") or {}
    if not isinstance(note, dict) or not all(isinstance(value, str) for value in note.values()):
        raise FileError(f"{path}: its __metadata__ is {str(note)[:60]}: expected strings by name")
    return note


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the JSON, and where it ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise FileError(
                f"{path} is truncated or not a safetensors file: {size} bytes, of which {length} for a header"
            )
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path} is not a safetensors file: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise FileError(
            f"{path} is not a safetensors file: its header is a {type(header).__name__}, expected an object"
        )
    return header, 8 + length


def _read(path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
    return np.fromfile(path, dtype, math.prod(shape), offset=offset).reshape(shape)


def _bytes(shape: Sequence[int], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize  # exact: NumPy's product would wrap around


def write_safetensors(
    path: Path | str, tensors: Mapping[str, np.ndarray | Stored], note: Mapping[str, str] | None = None
) -> None:
    """Writes tensors one after another; only one is in memory at a time. `note`: strings to carry beside them."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(note or {})}}
    end = 0
    # the widest numbers first, so that all are aligned; names make the order, and so the file, reproducible
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    for name in order:
        x = tensors[name]
        begin, end = end, end + _bytes(x.shape, x.dtype)
        header[name] = {"dtype": _NAMES[np.dtype(x.dtype)], "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            np.ascontiguousarray(np.asarray(tensors[name])).tofile(file)


def write_sharded(folder: Path, stem: str, tensors: Mapping[str, np.ndarray | Stored], limit: int) -> None:
    """Writes `stem`.safetensors, or where it would exceed `limit` bytes, shards of it and their index."""
    shards: list[list[str]] = [[]]
    room = limit
    for name, x in tensors.items():
        if _bytes(x.shape, x.dtype) > room and shards[-1]:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= _bytes(x.shape, x.dtype)
    if len(shards) == 1:
        write_safetensors(folder / f"{stem}.safetensors", tensors)
        return
    places = {}
    for n, names in enumerate(shards, 1):
        file = f"{stem}-{n:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in names})
        places.update(dict.fromkeys(names, file))
    total = sum(_bytes(x.shape, x.dtype) for x in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def read_tensors(path: Path | str, bare: str | None = None) -> dict[str, Stored]:
    """Reads the tensors of one file, by its ending: .safetensors.

    .bin, .pt, .pth or .ckpt through the restricted loader.

    A tensor that PyTorch saved by itself has the name `bare`; None refuses such files.

    Raises:
      FileError: for another ending, or a file that is broken.
      UnsafeFileError: for a file of PyTorch that holds something else than tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        return torch_file.read(path, bare)
    raise FileError(f"{path}: expected a file that ends in .safetensors, .bin, .pt, .pth or .ckpt")


def read_weights(folder: Path, variant: str | None = None) -> dict[str, Stored]:
    """Returns the weights of the model in a folder.

    The variant that is asked for where it is there, else the plain file, else any; safetensors before .bin.

    Raises:
      FileNotFoundError: if there are none, or a shard is missing.
      FileError: if a file is broken.
    """
    found: dict[str, Path] = {}
    for ending in ("bin", "safetensors"):
        for stem in reversed(STEMS):
            for path in sorted(folder.glob(f"{stem}.*")):
                parts = path.name.removeprefix(stem + ".").split(".")
                if ending in parts and "-of-" not in path.name:
                    found[".".join(part for part in parts if part not in (ending, "index", "json"))] = path
    if not found:
        raise FileNotFoundError(
            f"no weights in {folder}: expected {' or '.join(STEMS)} with .safetensors, .safetensors.index.json or .bin"
        )
    return _read_either(found.get(variant or "", found.get("", next(iter(found.values())))))


def _read_either(path: Path) -> dict[str, Stored]:
    if path.suffix != ".json":
        return read_tensors(path)
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise FileError(f"{path} has no weight_map: expected an object of tensors and their files")
    tensors = {}
    for file in sorted({*places.values()}):
        if Path(file).name != file or "\\" in file or Path(file).suffix not in (".safetensors", ".bin"):
            raise FileError(f"{path} names the shard {few([file])}: expected the name of a file beside it")
        if not (path.parent / file).is_file():
            raise FileNotFoundError(f"{path.name} names the shard {file}, which is not in {path.parent}")
        tensors.update(read_tensors(path.parent / file))
    if lost := sorted(places.keys() - tensors.keys()):
        raise FileError(f"{path} names tensors that its shards lack: {few(lost)}")
    return tensors
