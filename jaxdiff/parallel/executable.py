"""Compiled programs as files: compiled on one machine, run on another that has the chips, without tracing.

A file begins with a line of JSON, its key: what the programs depend on, and the versions and the code that made them.
Nothing is loaded whose key is not, word for word, the one that is wanted. What follows is machine code: it is programs,
and to be trusted like them. The reader builds nothing but JAX's and NumPy's own classes from it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from jaxdiff import __version__
from jaxdiff.parallel.mesh import MeshSpec, make_mesh
from jaxdiff.parallel.rules import path_string

FORMAT = "jaxdiff executable 2"


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
        **_versions(device_kind),
        "mesh": dict(mesh.shape),
        "program": hashlib.sha256(program.encode()).hexdigest()[:16],
        "shapes": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16],
    }


def _versions(device_kind: str) -> dict[str, str]:
    return {
        "format": FORMAT,
        "jaxdiff": __version__,
        "source": _source(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "libtpu": _version("libtpu") if device_kind.startswith("TPU") else "",
        "chip": device_kind,
    }


@functools.cache
def _source() -> str:
    """Returns a hash of the package's own code, since programs and the shapes of their states follow from it."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


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


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Turns the compilation cache off, within: a program from there, written again by XLA on a CPU, runs nowhere."""
    config: Any = jax.config
    before = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # which else remembers that it was on
    try:
        yield
    finally:
        config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def save(path: Path, programs: Mapping[str, Any], key: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Writes executables that `lower` began, whole or not at all.

    Args:
      path: path of the file.
      programs: compiled, by name.
      key: what they depend on.
      notes: JSON values that whoever loads them wants to know.

    Raises:
      OSError: if it cannot be written.
    """
    bodies = {name: serialize_executable.serialize(program)[0] for name, program in programs.items()}
    body = b"".join(bodies.values())
    contents = {
        "programs": {name: [len(bodies[name]), program.out_tree.num_leaves] for name, program in programs.items()},
        "notes": notes,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    header = json.dumps({**key, **contents})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(header.encode() + b"\n" + body)
    os.replace(part, path)


@dataclasses.dataclass(frozen=True)
class Saved:
    """The contents of a file, none of which is loaded yet.

    Attributes:
      path: path of the file.
      header: its key, its notes, and the size and the number of results of each program.
      body: the programs, one after another.
    """

    path: Path
    header: Mapping[str, Any]
    body: bytes
    _begun: dict[str, Future[Any]] = dataclasses.field(default_factory=dict)

    @property
    def notes(self) -> Mapping[str, Any]:
        """Returns the notes given to `save`."""
        return self.header["notes"]

    def check(self, key: Mapping[str, Any]) -> None:
        """Refuses programs that were saved for something else.

        Raises:
          StaleError: if the key is another one; says what differs.
        """
        if differ := [
            f"{name} {self.header.get(name)}, here {value}"
            for name, value in key.items()
            if self.header.get(name) != value
        ]:
            raise StaleError(f"{self.path} was saved for {'; '.join(differ)}: save it again")

    def begin(self, *names: str) -> None:
        """Begins to load programs, each in a thread: it takes seconds, in which Python imports and opens data.

        Raises:
          StaleError: if they are of other versions, or other devices.
        """
        devices = jax.devices()
        self.check(_versions(devices[0].device_kind))
        if (count := math.prod(self.header["mesh"].values())) != len(devices):
            raise StaleError(f"{self.path} was saved for {count} devices, here {len(devices)}: save it again")
        in_order = tuple(make_mesh(MeshSpec(**self.header["mesh"]), devices).devices.flat)
        pool = ThreadPoolExecutor()
        self._begun.update({name: pool.submit(self._read, name, in_order) for name in names})
        pool.shutdown(wait=False)

    def load(self, name: str, counts: tuple[int, int]) -> Callable[..., Any]:
        """Returns a program, (consumed leaves, other leaves) -> leaves, for the devices that are here.

        Args:
          name: name of the program.
          counts: leaves of both arguments.
        """
        if name not in self._begun:
            self.begin(name)
        unloaded, avals, no_kwargs = self._begun[name].result()
        leaves = lambda count: [0] * count
        takes = jax.tree.structure(((leaves(counts[0]), leaves(counts[1])), {}))
        out = jax.tree.structure(leaves(self.header["programs"][name][1]))
        return jax.stages.Compiled(unloaded.load(), [], jax.tree.unflatten(takes, avals), out, no_kwargs=no_kwargs)

    def _read(self, name: str, devices: tuple[jax.Device, ...]) -> tuple[Any, Any, Any]:
        sizes = {program: size for program, (size, _) in self.header["programs"].items()}
        start = sum(list(sizes.values())[: list(sizes).index(name)])
        return _Reader(io.BytesIO(self.body[start : start + sizes[name]]), devices[0].client, devices).load()


def read(path: Path) -> Saved:
    """Reads a file of `save`.

    Raises:
      FileNotFoundError: if it is missing.
      ValueError: if it is damaged, or of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no saved executable {path}: make it with --dry-run --save-executable {path}")
    line, _, body = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise KeyError
        digest = header["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no executable that --save-executable wrote with this version") from None
    if hashlib.sha256(body).hexdigest() != digest:
        raise ValueError(f"{path} is damaged: save it again")
    return Saved(path, header, body)


class _Reader(serialize_executable._JaxPjrtUnpickler):
    """Reads what JAX wrote, and refuses classes of all other packages."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] not in ("jax", "jaxlib", "numpy") or "." in name:
            raise ValueError(f"a saved executable names {module}.{name}, which none has: it is not one of ours")
        return super().find_class(module, name)
