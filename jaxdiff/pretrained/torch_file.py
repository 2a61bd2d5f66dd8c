"""Tensors out of PyTorch's zip files (.bin, .pt, .ckpt) without running what is in them.

Such a file is a zip of a pickle and the raw storages it refers to. A pickle can call anything; this reader knows the
few names that rebuild dictionaries and tensors. It imports no other, and refuses the file if one is called. (Old
training checkpoints name classes of their trainer without calling them.)
"""

import collections
import dataclasses
import pickle
import zipfile
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


class UnsafeFileError(ValueError):
    """A file that holds something else than tensors."""


def read(path: Path | str) -> dict[str, Stored]:
    """The tensors of a file by name, each read when it is asked for; a `state_dict` inside is taken for the whole,
    and what lies in another dictionary inside has the name `outer.inner`.

    Raises:
      UnsafeFileError: if the file is of the old format, or holds anything but dictionaries, tensors and numbers.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        raise UnsafeFileError(f"{path} is not a zip file of PyTorch 1.6 or later, or truncated: save it as safetensors")
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise UnsafeFileError(f"{path} is a zip file, but not of PyTorch: it has no data.pkl")
        with archive.open(pickles[0]) as file:
            try:
                tree = _Unpickler(file, path, pickles[0].removesuffix("data.pkl")).load()
            except (TypeError, AttributeError, pickle.UnpicklingError, EOFError) as error:
                raise UnsafeFileError(f"{path} holds something else than tensors, or is broken: {error}") from error
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict):
        raise UnsafeFileError(f"{path} holds a {type(tree).__name__}, expected a dictionary of tensors")
    nested = {f"{name}.{k}": v for name, value in tree.items() if isinstance(value, dict) for k, v in value.items()}
    return {str(name): x for name, x in {**tree, **nested}.items() if isinstance(x, Stored)}


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


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path, root: str):
        super().__init__(file)
        self.path, self.root = path, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, requires_grad, hooks: tensor
        return _Named(f"{module}.{name}", self.path)

    def persistent_load(self, identity: Any) -> tuple[np.dtype, str, int]:
        kind, dtype, name, _, count = identity
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise UnsafeFileError(f"{self.path} refers to {kind!r} of {dtype}: expected a storage of numbers")
        return dtype, f"{self.root}data/{name}", count

    def _tensor(
        self, storage: tuple[np.dtype, str, int], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> Stored:
        dtype, name, count = storage
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if all(shape) else offset - 1
        if offset < 0 or min((0, *shape, *stride)) < 0 or last >= count:
            raise UnsafeFileError(f"{self.path}: a tensor {shape} reaches beyond its storage of {count} numbers")
        path = self.path

        def load() -> np.ndarray:
            with zipfile.ZipFile(path) as archive, archive.open(name) as file:
                file.seek(offset * dtype.itemsize)
                data = file.read((last - offset + 1) * dtype.itemsize)
            # the count is the pickle's own word: a shorter storage must not let the strides reach other memory
            if len(data) != (last - offset + 1) * dtype.itemsize:
                raise UnsafeFileError(
                    f"{path}: {name} holds {len(data) // dtype.itemsize} of the {last - offset + 1} numbers that a "
                    f"tensor {shape} needs: the file is truncated or made up"
                )
            flat = np.frombuffer(data, dtype)
            return np.lib.stride_tricks.as_strided(flat, shape, [s * dtype.itemsize for s in stride])

        return Stored(tuple(shape), dtype, load)
