"""Tensors out of PyTorch's files (.bin, .pt, .pth, .ckpt) without running what is in them.

Such a file is a zip of a pickle and the raw storages it refers to; before PyTorch 1.6, five pickles (a magic number, a
version, the machine, the tree, the names of the storages) and then the storages, each after its count in 8 bytes. A
pickle can call anything; this reader knows the few names that rebuild dictionaries and tensors. It imports no other,
and refuses the file if one is called. (Old training checkpoints name classes of their trainer without calling them.)
"""

import collections
import dataclasses
import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxdiff.pretrained.rules import Stored

_STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_BROKEN = (
    *(TypeError, AttributeError, KeyError, IndexError, ValueError, OverflowError, RecursionError, MemoryError),
    *(
        pickle.UnpicklingError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ),
)
"""What a damaged zip or pickle can raise."""
LARGEST_PICKLE = 64 * 2**20
"""Bytes of the largest pickle that is read; those of published models have below one million."""
_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


class UnsafeFileError(ValueError):
    """A file that holds something else than tensors."""


def read(path: Path | str, bare: str | None = None) -> dict[str, Stored]:
    """The tensors of a file by name, each read when it is asked for; a `state_dict` inside is taken for the whole,
    and what lies in another dictionary inside has the name `outer.inner`.

    Args:
      path: the file.
      bare: the name of a tensor that is saved by itself; None refuses such files.

    Raises:
      UnsafeFileError: if the file is another, or holds anything but dictionaries, tensors and numbers.
    """
    path = Path(path)
    try:
        tree = _zipped(path) if zipfile.is_zipfile(path) else _plain(path)
    except UnsafeFileError:
        raise
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.filename:  # not there, or not allowed
            raise
        raise UnsafeFileError(f"{path} holds something else than tensors, or is broken: {str(error)[:200]}") from error
    if isinstance(tree, Stored) and bare is not None:
        return {bare: tree}
    if isinstance(tree, Stored):
        raise UnsafeFileError(f"{path} holds one tensor {tree.shape} without a name: expected a dictionary of tensors")
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict):
        raise UnsafeFileError(f"{path} holds a {type(tree).__name__}, expected a dictionary of tensors")
    nested = {f"{name}.{k}": v for name, value in tree.items() if isinstance(value, dict) for k, v in value.items()}
    return {str(name): x for name, x in {**tree, **nested}.items() if isinstance(x, Stored)}


def _zipped(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        # PyTorch never compresses, so what is declared to be larger than the file was made to fill a memory
        declared, size = sum(info.file_size for info in archive.infolist()), path.stat().st_size
        if declared > size:
            raise UnsafeFileError(
                f"{path} has {size} bytes but would unpack to {declared}: PyTorch's own files are not compressed"
            )
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise UnsafeFileError(
                f"{path} is a zip file, but not of PyTorch: it has {len(pickles)} data.pkl, expected 1"
            )

        def fetch(name: str, start: int, size: int) -> bytes:
            with zipfile.ZipFile(path) as archive, archive.open(f"{pickles[0].removesuffix('.pkl')}/{name}") as file:
                file.seek(start)
                return file.read(size)

        with archive.open(pickles[0]) as file:
            return _Unpickler(_checked(file, path), path, fetch).load()


def _plain(path: Path) -> Any:
    places: dict[str, int] = {}

    def fetch(name: str, start: int, size: int) -> bytes:
        with path.open("rb") as file:
            file.seek(places[name] + start)
            return file.read(size)

    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UnsafeFileError(f"{path} is not a file of PyTorch, or truncated: save it again, or as safetensors")
        _Unpickler(_checked(file, path), path, fetch).load()
        _Unpickler(_checked(file, path), path, fetch).load()
        reader = _Unpickler(_checked(file, path), path, fetch)
        tree = reader.load()
        for name in _Unpickler(_checked(file, path), path, fetch).load():
            count = int.from_bytes(file.read(8), "little")
            places[name] = file.tell()
            file.seek(count * reader.widths[name], 1)
    if lost := reader.widths.keys() - places.keys():
        raise UnsafeFileError(f"{path} is truncated: it lacks {len(lost)} of {len(reader.widths)} storages")
    return tree


def _checked(file: Any, path: Path) -> io.BytesIO:
    """The next pickle of a file, if it asks for no more memory than its size explains.

    A few bytes can tell the machine that unpickles to reserve gigabytes, by a number for a memo or for a length.
    """
    data = file.read(LARGEST_PICKLE)
    stream = io.BytesIO(data)
    for count, (code, value, _) in enumerate(pickletools.genops(stream)):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(value, int) and value > count:
            raise UnsafeFileError(f"{path} is broken: its pickle stores value {value} after {count} steps")
    used = stream.tell()
    file.seek(used - len(data), 1)
    return io.BytesIO(data[:used])


@dataclasses.dataclass(frozen=True)
class _Named:
    """What stands for a name that is not known here."""

    name: str
    path: Path

    def __call__(self, *args: Any) -> None:
        raise UnsafeFileError(
            f"{self.path} calls {self.name}, which could run anything: only tensors are read. "
            "Save it as safetensors with the library that made it"
        )


class _ParameterDict(dict[str, Stored]):
    """What stands for PyTorch's module of parameters, in which the first textual inversions keep their vectors."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state["_parameters"])


class _Unpickler(pickle.Unpickler):
    """Reads one pickle; `fetch` (name, start, size) gives bytes of a storage."""

    def __init__(self, file: Any, path: Path, fetch: Callable[[str, int, int], bytes]):
        super().__init__(file)
        self.path, self.fetch = path, fetch
        self.widths: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, requires_grad, hooks: tensor
        if (module, name) == ("torch.nn.modules.container", "ParameterDict"):
            return _ParameterDict
        if module in ("builtins", "__builtin__") and name == "set":  # a module's list of buffers not to be saved
            return frozenset
        return _Named(f"{module}.{name}", self.path)

    def persistent_load(self, identity: Any) -> tuple[np.dtype, str, int]:
        kind, dtype, name, _, count, *view = identity
        if kind != "storage" or not isinstance(dtype, np.dtype) or any(view):
            raise UnsafeFileError(f"{self.path} refers to {kind!r} of {dtype}: expected a whole storage of numbers")
        self.widths[name] = dtype.itemsize
        return dtype, name, count

    def _tensor(
        self, storage: tuple[np.dtype, str, int], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> Stored:
        dtype, name, count = storage
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if all(shape) else offset - 1
        if offset < 0 or min((0, *shape, *stride)) < 0 or last >= count:
            raise UnsafeFileError(f"{self.path}: a tensor {shape} reaches beyond its storage of {count} numbers")
        if math.prod(shape) > max(count, 2**20):
            raise UnsafeFileError(
                f"{self.path}: a tensor {shape} repeats its storage of {count} numbers: a memory's fill"
            )
        path, fetch = self.path, self.fetch

        def load() -> np.ndarray:
            try:
                data = fetch(name, offset * dtype.itemsize, (last - offset + 1) * dtype.itemsize)
            except _BROKEN as error:
                raise UnsafeFileError(f"{path}: storage {str(name)[:80]} cannot be read: {str(error)[:200]}") from error
            # the count is the pickle's own word: a shorter storage must not let the strides reach other memory
            if len(data) != (last - offset + 1) * dtype.itemsize:
                raise UnsafeFileError(
                    f"{path}: {name} holds {len(data) // dtype.itemsize} of the {last - offset + 1} numbers that a "
                    f"tensor {shape} needs: the file is truncated or made up"
                )
            flat = np.frombuffer(data, dtype)
            return np.lib.stride_tricks.as_strided(flat, shape, [s * dtype.itemsize for s in stride])

        return Stored(tuple(shape), dtype, load)
