"""Files of Flax: msgpack of nested dicts of arrays, read by what they may hold and nothing else, and written.

A file is maps with texts as keys, whose leaves are arrays: extensions of type 1 with [shape, dtype, bytes]. Nothing
in it is run, and an array is read from its place in the file when it is asked for.

Tensors have names and layouts as PyTorch has them, so that `pretrained.rules` serves: `kernel` [k, l, i, o] is `weight`
[o, i, k, l], `kernel` [i, o] is `weight` [o, i], `scale` and `embedding` are `weight`. Equal layers that are stacked
("FlaxBartEncoderLayers", whose arrays have the layer as first axis) are separated ("FlaxBartEncoderLayer_3").
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.pretrained.files import FileError
from jaxdiff.pretrained.rules import Stored, Tensors

STEM = "flax_model"
NAME = f"{STEM}.msgpack"
_DEEPEST = 32
_STACKED = re.compile(r"(.*\.)?(\w*[A-Za-z]Layer)s\.(.*)")
_APART = re.compile(r"(.*\.)?(\w*[A-Za-z]Layer)_(\d+)\.(.*)")
_DTYPES = ("float32", "float16", "bfloat16", "float64", "int32", "int64", "uint8", "bool")


def read(path: Path) -> dict[str, Stored]:
    """Returns the tensors of a file by name.

    Raises:
      FileError: if it is not such a file, truncated, or holds anything but arrays.
    """
    tensors: dict[str, Stored] = {}
    for name, stored in _leaves(path, _File(path).tree()):
        if stack := _STACKED.fullmatch(name):
            above, layer, rest = (part or "" for part in stack.groups())
            for i in range(stored.shape[0] if stored.shape else 0):
                tensors.update([_as_torch(f"{above}{layer}_{i}.{rest}", _slice(stored, i))])
        else:
            tensors.update([_as_torch(name, stored)])
    return tensors


def is_stacked(path: Path) -> bool:
    """Returns whether equal layers of a file are stacked."""
    return any(_STACKED.fullmatch(name) for name, _ in _leaves(path, _File(path).tree()))


def write(path: Path, tensors: Tensors, *, stacked: bool) -> None:
    """Writes tensors of `read`, whole or not at all; `stacked` says whether equal layers are."""
    named = dict(_as_flax(name, x) for name, x in tensors.items())
    if stacked:
        groups: dict[str, dict[int, Any]] = {}
        for name in [name for name in named if _APART.fullmatch(name)]:
            above, layer, i, rest = (part or "" for part in _APART.fullmatch(name).groups())  # type: ignore[union-attr]
            groups.setdefault(f"{above}{layer}s.{rest}", {})[int(i)] = named.pop(name)
        named |= {name: [layers[i] for i in sorted(layers)] for name, layers in groups.items()}
    tree: dict[str, Any] = {}
    for name, x in named.items():
        *above, last = name.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = x
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as file:
        for piece in _packed(tree):
            file.write(piece)
    unfinished.replace(path)


def _as_torch(name: str, x: Stored) -> tuple[str, Stored]:
    above, _, leaf = name.rpartition(".")
    if leaf == "kernel" and len(x.shape) in (2, 4):
        order = (1, 0) if len(x.shape) == 2 else (3, 2, 0, 1)
        shape = tuple(x.shape[i] for i in order)
        return f"{above}.weight", Stored(shape, x.dtype, lambda: np.asarray(x).transpose(order))
    return (f"{above}.weight", x) if leaf in ("scale", "embedding") else (name, x)


def _as_flax(name: str, x: np.ndarray | Stored) -> tuple[str, np.ndarray | Stored]:
    above, _, leaf = name.rpartition(".")
    if leaf != "weight":
        return name, x
    if len(x.shape) == 1:
        return f"{above}.scale", x
    if above.rpartition(".")[2].startswith("embed"):
        return f"{above}.embedding", x
    order = (1, 0) if len(x.shape) == 2 else (2, 3, 1, 0)
    shape = tuple(x.shape[i] for i in order)
    return f"{above}.kernel", Stored(shape, np.dtype(x.dtype), lambda: np.asarray(x).transpose(order))


def _slice(x: Stored, i: int) -> Stored:
    return Stored(x.shape[1:], x.dtype, lambda: np.asarray(x)[i])


def _leaves(path: Path, tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Stored]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(path, value, f"{above}{name}.")
        elif isinstance(value, Stored):
            yield above + name, value
        else:
            raise FileError(f"{path}: {above}{name} is {str(value)[:40]!r}: expected an array")


class _File:
    """Reads the structure of a msgpack file, whose arrays stay where they are."""

    def __init__(self, path: Path):
        self.path, self.size = path, path.stat().st_size
        self.data = np.memmap(path, np.uint8, "r") if self.size else np.zeros(0, np.uint8)
        self.at = 0

    def tree(self) -> dict[str, Any]:
        value = self._value(0)
        if not isinstance(value, dict) or self.at != self.size:
            raise FileError(f"{self.path} is not a file of Flax: expected a map of arrays, and nothing after it")
        return value

    def _take(self, count: int) -> int:
        """Returns where `count` bytes begin, and goes past them."""
        if count > self.size - self.at:
            raise FileError(f"{self.path} is truncated, or not a file of Flax: {count} bytes are missing at {self.at}")
        self.at += count
        return self.at - count

    def _number(self, code: str) -> int:
        size = struct.calcsize(code)
        start = self._take(size)
        return int(struct.unpack(f">{code}", self.data[start : start + size].tobytes())[0])

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise FileError(f"{self.path} is nested deeper than {_DEEPEST} levels: not a file of Flax")
        head = self._number("B")
        if head < 0x80:
            return head
        if head <= 0x8F or head in (0xDE, 0xDF):
            count = head & 15 if head <= 0x8F else self._number("H" if head == 0xDE else "I")
            return self._map(count, depth)
        if head <= 0x9F or head in (0xDC, 0xDD):
            count = head & 15 if head <= 0x9F else self._number("H" if head == 0xDC else "I")
            if count > 64:
                raise FileError(f"{self.path} has a list of {count}: expected the sides of an array")
            return [self._value(depth + 1) for _ in range(count)]
        if head <= 0xBF or head in (0xD9, 0xDA, 0xDB):
            count = head & 31 if head <= 0xBF else self._number({0xD9: "B", 0xDA: "H", 0xDB: "I"}[head])
            start = self._take(count)
            return self.data[start : start + count].tobytes().decode("utf-8", "replace")
        if head in (0xC2, 0xC3):
            return head == 0xC3
        if head in (0xC4, 0xC5, 0xC6):
            count = self._number({0xC4: "B", 0xC5: "H", 0xC6: "I"}[head])
            return range(start := self._take(count), start + count)
        if head in (0xCC, 0xCD, 0xCE, 0xCF):
            return self._number("BHIQ"[head - 0xCC])
        if head in (0xC7, 0xC8, 0xC9) or 0xD4 <= head <= 0xD8:
            count = 2 ** (head - 0xD4) if head >= 0xD4 else self._number("BHI"[head - 0xC7])
            return self._array(self._number("b"), count, depth)
        raise FileError(f"{self.path} holds what files of Flax do not (a value that begins with {head:#x})")

    def _map(self, count: int, depth: int) -> Any:
        found: dict[str, Any] = {}
        for _ in range(count):
            if not isinstance(key := self._value(depth + 1), str) or key in found or "." in key:
                raise FileError(f"{self.path} has the name {str(key)[:40]!r} in a map: expected texts, each once")
            found[key] = self._value(depth + 1)
        if found.pop("__msgpack_chunked_array__", False):
            return self._joined(found)
        return found

    def _joined(self, found: dict[str, Any]) -> Stored:
        """Returns a large array, which Flax splits into flat ones."""
        parts = list((found.get("chunks") or {}).values())
        shape = tuple((found.get("shape") or {}).values())
        if not parts or not all(isinstance(x, Stored) for x in parts) or not all(isinstance(n, int) for n in shape):
            raise FileError(f"{self.path} has a split array that is broken")
        if math.prod(shape) != sum(math.prod(x.shape) for x in parts):
            raise FileError(f"{self.path} has a split array whose parts do not make its shape {shape}")
        join = lambda: np.concatenate([np.asarray(x).reshape(-1) for x in parts]).reshape(shape)
        return Stored(shape, parts[0].dtype, join)

    def _array(self, kind: int, count: int, depth: int) -> Stored:
        end = self.at + count
        value = self._value(depth + 1) if kind == 1 and count else None
        parts: Any = value if isinstance(value, list) and len(value) == 3 else (None, None, None)
        shape, name, where = parts
        fits = isinstance(shape, list) and all(type(n) is int for n in shape) and isinstance(where, range)
        if not fits or name not in _DTYPES or self.at != end:
            raise FileError(f"{self.path} has an extension that is not an array of {', '.join(_DTYPES)}")
        dtype = np.dtype(name)
        if math.prod(shape) * dtype.itemsize != len(where):
            raise FileError(
                f"{self.path}: an array {tuple(shape)} of {name} has {len(where)} bytes: the file is broken"
            )
        load = lambda: self.data[where.start : where.stop].view(dtype).reshape(shape)
        return Stored(tuple(shape), dtype, load)


def _packed(value: Any) -> Iterator[bytes]:
    """Yields the bytes of a map, a text, or an array, which may be a list of layers."""
    if isinstance(value, dict):
        yield struct.pack(">BI", 0xDF, len(value))
        for name, one in value.items():
            yield from (_text(name), *_packed(one))
        return
    layers = value if isinstance(value, list) else [value]
    shape = (len(layers), *layers[0].shape) if isinstance(value, list) else tuple(value.shape)
    dtype = np.dtype(layers[0].dtype)
    count = math.prod(shape) * dtype.itemsize
    head = struct.pack(">BB", 0x93, 0x90 | len(shape)) + b"".join(struct.pack(">BI", 0xCE, n) for n in shape)
    head += _text(dtype.name) + struct.pack(">BI", 0xC6, count)
    yield struct.pack(">BIb", 0xC9, len(head) + count, 1) + head
    for one in layers:
        yield np.ascontiguousarray(np.asarray(one)).tobytes()


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">BI", 0xDB, len(data)) + data
