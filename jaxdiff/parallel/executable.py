"""Compiled programs as files: compiled on one machine, run on another that has the chips, without tracing.

A file begins with a line of JSON, its key: what the program depends on, and the versions that made it. Nothing is
loaded whose key is not, word for word, the one that is wanted. What follows is machine code: it is a program, and to be
trusted like one. The reader builds nothing but JAX's and NumPy's own classes from it.
"""

import hashlib
import importlib.metadata
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from jaxdiff import __version__
from jaxdiff.parallel.rules import path_string

FORMAT = "jaxdiff executable 1"


class StaleError(ValueError):
    """A saved executable is of another version, chip, mesh or program; the message says what differs."""


def key(program: str, arguments: Any, mesh: Any, device_kind: str) -> dict[str, Any]:
    """Returns what an executable depends on.

    Args:
      program: text that tells programs with the same arguments apart: the config of the run.
      arguments: tree of shapes with shardings.
      mesh: mesh of the devices.
      device_kind: kind of each device.
    """
    leaves = jax.tree_util.tree_leaves_with_path(arguments)
    shapes = [(path_string(path), x.shape, str(x.dtype), str(x.sharding.spec)) for path, x in leaves]
    return {
        "format": FORMAT,
        "jaxdiff": __version__,
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "libtpu": _version("libtpu") if device_kind.startswith("TPU") else "",
        "chip": device_kind,
        "mesh": dict(mesh.shape),
        "program": hashlib.sha256(program.encode()).hexdigest()[:16],
        "shapes": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16],
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def lower(function: Callable[..., Any], arguments: Sequence[Any], results: Any, donated: int = 1) -> Any:
    """Lowers a function of trees as one of lists, which is all that a file can hold.

    Args:
      function: (*arguments) -> a tree.
      arguments: trees of shapes with shardings; the first `donated` are consumed.
      results: a tree of the results' shardings.
      donated: how many.
    """
    consumed, kept = jax.tree.flatten(tuple(arguments[:donated])), jax.tree.flatten(tuple(arguments[donated:]))

    def flat(first: list[Any], rest: list[Any]) -> list[Any]:
        return jax.tree.leaves(function(*jax.tree.unflatten(consumed[1], first), *jax.tree.unflatten(kept[1], rest)))

    at = lambda leaves: [leaf.sharding for leaf in leaves]
    jitted = jax.jit(
        flat, in_shardings=(at(consumed[0]), at(kept[0])), out_shardings=jax.tree.leaves(results), donate_argnums=0
    )
    return jitted.lower(consumed[0], kept[0])


def save(path: Path, executable: Any, key: Mapping[str, Any], names: Sequence[str] = ()) -> None:
    """Writes an executable that `lower` began, whole or not at all.

    Args:
      path: path of the file.
      executable: compiled.
      key: what it depends on.
      names: names of its last results, which are given back by `load`.

    Raises:
      OSError: if it cannot be written.
    """
    body, _, _ = serialize_executable.serialize(executable)
    contents = {
        "results": executable.out_tree.num_leaves,
        "names": [*names],
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    header = json.dumps({**key, **contents})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(header.encode() + b"\n" + body)
    os.replace(part, path)


def load(
    path: Path, key: Mapping[str, Any], counts: tuple[int, int], devices: Sequence[jax.Device]
) -> tuple[Callable[..., Any], list[str]]:
    """Returns the executable of a file, (consumed leaves, other leaves) -> leaves, and the names given to `save`.

    Args:
      path: path of the file.
      key: that it must have.
      counts: leaves of both arguments.
      devices: that it runs on.

    Raises:
      FileNotFoundError: if it is missing.
      StaleError: if its key is another one.
      ValueError: if it is damaged, or no executable at all.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no saved executable {path}: make it with --dry-run --save-executable {path}")
    line, _, body = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise KeyError
        results, names, digest = header["results"], header["names"], header["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no executable that --save-executable wrote") from None
    if differ := [
        f"{name} {header.get(name)}, here {value}" for name, value in key.items() if header.get(name) != value
    ]:
        raise StaleError(f"{path} was saved for {'; '.join(differ)}: save it again")
    if hashlib.sha256(body).hexdigest() != digest:
        raise ValueError(f"{path} is damaged: save it again")
    leaves = lambda count: [0] * count
    takes = jax.tree.structure(((leaves(counts[0]), leaves(counts[1])), {}))
    unloaded, avals, no_kwargs = _Reader(io.BytesIO(body), devices[0].client, devices).load()
    out = jax.tree.structure(leaves(results))
    return jax.stages.Compiled(unloaded.load(), [], jax.tree.unflatten(takes, avals), out, no_kwargs=no_kwargs), names


class _Reader(serialize_executable._JaxPjrtUnpickler):
    """Reads what JAX wrote, and refuses classes of all other packages."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] not in ("jax", "jaxlib", "numpy") or "." in name:
            raise ValueError(f"a saved executable names {module}.{name}, which none has: it is not one of ours")
        return super().find_class(module, name)
