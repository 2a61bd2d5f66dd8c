"""A function of examples on many devices: the batch is split among them, and its other inputs are on all of them."""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.parallel import executable
from jaxdiff.parallel.mesh import MeshSpec, make_mesh


def jit_forward(function: Callable[..., Any], platform: str, **kwargs: Any) -> Any:
    """Compiles a program without a backward pass, as `jax.jit`, with the options that are best for its platform.

    XLA on a CPU orders operations so that many could run at once, and their buffers lie side by side. In the order that
    needs least memory Stable Diffusion's U-Net takes a quarter of it, and less time; a training step takes more.
    """
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return jax.jit(function, compiler_options=options if platform == "cpu" else None, **kwargs)


def lay(x: Any, at: NamedSharding) -> jax.Array:
    """Puts an array that every process has whole onto the devices of all of them."""
    if jax.process_count() == 1:
        return jax.device_put(x, at)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(lay(jax.random.key_data(x), at), impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, at, lambda index: host[index])


class Spread:
    """`function(shared, batch)`, compiled for many devices, as a function of host arrays that returns host arrays.

    `shared` is any tree (weights, tables). Its leaves that lie on `mesh` already, such as weights sharded by
    `parallel.param_shardings`, stay as they are; all others go to every device. The leaves of `batch` and of the result
    have the example as their first axis, and an example's result depends on no other. A batch is filled up to a
    multiple of the devices, or of `multiple`, with copies of its last example, whose results are dropped.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        spec: MeshSpec | Literal["pmap"] = MeshSpec(),
        devices: Sequence[jax.Device] | None = None,
        *,
        multiple: int = 1,
        programs: Path | None = None,
        identity: str = "",
    ):
        """Compiles nothing yet.

        Args:
          function: (shared, batch) -> result.
          spec: how `devices` share the batch.
          devices: all by default.
          multiple: batches are padded to a multiple of this, so that many batch sizes share one program.
          programs: a folder that keeps compiled programs: what lies there runs without tracing and compiling, what
            does not is put there. Such a program is bound to its shapes, the mesh, the kind of devices, the versions
            and the code that made it, and `identity`.
          identity: all that `function` depends on beside its arguments, as text.

        Raises:
          ValueError: if the mesh does not fit the devices, or `programs` is given for pmap.
        """
        devices = tuple(jax.devices() if devices is None else devices)
        self._split = spec == "pmap"
        if self._split and programs:
            raise ValueError("programs cannot be kept for strategy 'pmap': use the mesh strategy")
        self.mesh = make_mesh(MeshSpec() if spec == "pmap" else spec, devices)
        self.ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        self._multiple = math.lcm(self.ways, multiple)
        self._replicated, self._each = NamedSharding(self.mesh, P()), NamedSharding(self.mesh, P(("data", "fsdp")))
        self._out = self._replicated if jax.process_count() > 1 else self._each  # every process gets the whole result
        self._function, self._programs, self._identity = function, programs, identity
        self._platform = devices[0].platform
        self._loaded: dict[str, Any] = {}
        self._traces = 0

        def traced(shared: Any, batch: Any) -> Any:
            self._traces += 1
            return function(shared, batch)

        self._program: Any = (
            jax.pmap(traced, in_axes=(None, 0), devices=devices)
            if self._split
            else jit_forward(traced, self._platform, out_shardings=self._out)
        )

    def __call__(self, shared: Any, batch: Any, host: bool = True) -> Any:
        """Returns the result for a batch of any size from 1; without `host` it stays on the devices.

        Raises:
          ValueError: if there are no examples, or a program that was kept cannot be read.
        """
        count = jax.tree.leaves(batch)[0].shape[0]
        if not count:
            raise ValueError("a batch of no examples was given: expected at least one")
        rows = np.minimum(np.arange(count + -count % self._multiple), count - 1)

        def fill(x: Any) -> Any:
            x = x[rows] if len(rows) > count else x
            return x.reshape(self.ways, len(rows) // self.ways, *x.shape[1:]) if self._split else lay(x, self._each)

        def join(x: Any) -> Any:
            x = np.asarray(x) if host else x
            return (x.reshape(-1, *x.shape[2:]) if self._split else x)[:count]

        def put(x: Any) -> Any:
            placed = isinstance(x, jax.Array) and getattr(x.sharding, "mesh", None) == self.mesh
            return x if placed and not self._split else lay(x, self._replicated)

        shared, batch = jax.tree.map(put, shared), jax.tree.map(fill, batch)
        with contextlib.nullcontext() if self._split else jax.set_mesh(self.mesh):
            out = self._kept(self._programs, shared, batch) if self._programs else self._program(shared, batch)
        return jax.tree.map(join, out)

    def compiled(self) -> int:
        """Returns how many programs have been traced and compiled so far; each was traced once."""
        return self._traces

    def _kept(self, folder: Path, shared: Any, batch: Any) -> Any:
        """Calls the program in `folder`, which is made if it is not there."""
        leaves, tree = jax.tree.flatten((shared, batch))
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
        devices = tuple(self.mesh.devices.flat)
        key = executable.key(f"{self._identity} {tree}", shapes, self.mesh, devices[0].device_kind)
        path = folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]}.program"
        if path.name not in self._loaded:
            if not path.is_file():
                self._make(path, key, tree, shapes)
            try:
                saved = executable.read(path)
                saved.check(key)
                saved.begin("program", devices=devices)
                self._loaded[path.name] = saved.load("program", (0, len(leaves))), saved.notes["result"]
            except ValueError as error:
                raise ValueError(
                    f"{path} is not a program that can be read ({error}): delete it, to have it made"
                ) from error
        call, result = self._loaded[path.name]
        return _filled(result, call([], leaves))

    def _make(self, path: Path, key: Mapping[str, Any], tree: Any, shapes: list[Any]) -> None:
        """Compiles the program of a tree of arguments, and writes it."""
        self._traces += 1
        result: Any = None

        def flat(_: list[Any], leaves: list[Any]) -> list[Any]:
            nonlocal result
            out, structure = jax.tree.flatten(self._function(*jax.tree.unflatten(tree, leaves)))
            result = jax.tree.unflatten(structure, range(len(out)))
            return out

        lowered = jit_forward(flat, self._platform, out_shardings=self._out).lower([], shapes)
        with executable.uncached():
            made = lowered.compile()
        executable.save(path, {"program": made}, key, {"result": result})


def _filled(result: Any, leaves: Sequence[Any]) -> Any:
    """Returns a tree of JSON, of tuples and dictionaries, with leaves in place of their numbers."""
    if isinstance(result, Mapping):
        return {name: _filled(part, leaves) for name, part in result.items()}
    if isinstance(result, list):
        return tuple(_filled(part, leaves) for part in result)
    return None if result is None else leaves[result]
