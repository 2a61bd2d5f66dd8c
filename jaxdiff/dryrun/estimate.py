"""An estimate of the memory that a program needs beside its arguments, from the jaxpr: what must live at the same time.

Operations that XLA fuses into their readers (elementwise ones, broadcasts, reshapes, transposes) keep nothing: who
reads their result reads what they were made of, which must live so long. Products, convolutions, reductions, loops and
foreign kernels store their results, and read their arguments from memory. The peak is that of the order in the jaxpr;
the compiler has another one, tiles arrays and shares buffers, so this is an estimate.

Sizes are those of one device. A dimension that holds the examples is known by its size, since the program is traced
with a multiple of the prime `EXAMPLES` of them on each device: it is split over data and fsdp, and grows with the
batch. Arrays of a parameter's shape (gradients, updates) are split as it is.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

COMPARED = 400 * 2**20
"""Bytes from which programs were compared with what libtpu says of them, and the estimate is good to a quarter."""

EXAMPLES = 509
"""Examples of each device in the trace; no other dimension is a multiple of it."""

_INLINED = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
_STORED = {
    *("dot_general", "conv_general_dilated", "concatenate", "scan", "while", "cond", "shard_map", "pallas_call"),
    *("reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin", "cumsum", "sort", "top_k", "gather", "scatter"),
    *("scatter-add", "scatter_add", "dynamic_update_slice", "random_bits", "random_split", "random_fold_in"),
    *("threefry2x32", "custom_call", "ffi_call"),
}


def distance(platform: str, size: int | float) -> str:
    """Says how far the compiler of a platform is from an estimate of so many bytes, as far as that was measured."""
    if platform == "cpu":
        return "compiled for a CPU it was as much in sampling and 2 to 4 times as much in training"
    if platform != "tpu":
        return f"not compared with a compiler of {platform}"
    if size < COMPARED:
        return "no figure for so small a program: compiled for v5e, one of 258 MiB took 0.4 of it"
    return "within a quarter of it compiled for v5e in five programs from 456 MiB on, 0.82 to 1.13 of it"


class Bytes(NamedTuple):
    """Bytes of one device: of whatever does not grow with the batch, and of examples."""

    fixed: float
    each: float


@dataclasses.dataclass(frozen=True)
class Live:
    """Bytes that live at each operation of a program, on one device, beside its arguments.

    Attributes:
      fixed: bytes of gradients, gathered weights and the like.
      each: bytes of one example, of which a device has several.
      stored: bytes of all results that are written to memory, each once.
    """

    fixed: np.ndarray
    each: np.ndarray
    stored: Bytes = Bytes(0.0, 0.0)

    def peak(self, examples: int) -> float:
        """Returns the most bytes at once with so many examples a device."""
        return float((self.fixed + examples * self.each).max(initial=0.0))


class Sizes:
    """The bytes of one device in a value, by its shape."""

    def __init__(self, ways: int, held: Mapping[tuple[int, ...], int] = {}, tiled: int = 0) -> None:
        """Takes how a mesh splits things.

        Args:
          ways: devices that share the examples.
          held: shape of a parameter -> elements of it that one device holds.
          tiled: where arrays lie in tiles of 8 x 128 32-bit words, as on a TPU, the examples of a device: how much of
            the tiles is padding depends on them; 0: there are no tiles.
        """
        self._ways, self._held, self._tiled = ways, held, tiled

    def __call__(self, aval: Any, mapped: bool = False, kernel: bool = False) -> Bytes:
        """Returns them; a `mapped` value is already one device's, one of a `kernel` lies as that wants it."""
        shape = tuple(getattr(aval, "shape", ()))
        if not hasattr(aval, "dtype"):
            return Bytes(0.0, 0.0)
        width = getattr(aval.dtype, "itemsize", 4)
        at = [dim for dim, length in enumerate(shape) if length and length % EXAMPLES == 0]
        if at:
            count = self._tiled or EXAMPLES
            local = [*shape]
            local[at[0]] = shape[at[0]] // (1 if mapped else self._ways) * count // EXAMPLES
            return Bytes(0.0, self._padded(local, at[0], width, kernel) * width / count)
        held = math.prod(shape) if mapped else self._held.get(shape, math.prod(shape))
        return Bytes(float(held * width), 0.0)

    def _padded(self, shape: list[int], examples: int, width: int, kernel: bool) -> int:
        """Elements with the padding of tiles: as written in a kernel, and else in the layout that has least.

        Of pictures, channels or the `examples` lie along the 128 lanes.
        """
        if not self._tiled or len(shape) < 2:
            return math.prod(shape)
        rows = 8 * 4 // width
        up = lambda length, to: -(-length // to) * to / length
        if kernel:
            return round(math.prod(shape) * up(shape[-1], 128) * up(shape[-2], rows))
        lanes = {examples, len(shape) - 1} if len(shape) > 3 else range(len(shape))
        pairs = ((lane, sub) for lane in lanes for sub in range(len(shape)) if sub != lane)
        return round(math.prod(shape) * min(up(shape[lane], 128) * up(shape[sub], rows) for lane, sub in pairs))


class _Operation(NamedTuple):
    name: str
    inputs: list[Any]
    outputs: list[Any]
    eqn: Any


class _Value:
    def __init__(self, aval: Any) -> None:
        self.aval = aval


def live(jaxpr: core.ClosedJaxpr, sizes: Sizes) -> Live:
    """Returns what lives at each operation of a traced program."""
    return _live(jaxpr.jaxpr, sizes, mapped=False)


def _live(jaxpr: core.Jaxpr, sizes: Sizes, mapped: bool) -> Live:
    operations: list[_Operation] = []
    values: dict[Any, Any] = {v: v for v in (*jaxpr.invars, *jaxpr.constvars)}
    _inline(jaxpr, values, operations)
    arguments = {values[v] for v in (*jaxpr.invars, *jaxpr.constvars)}
    end = len(operations)
    sources: dict[Any, frozenset[Any]] = {}  # of what is fused: the stored values that it is made of
    born: dict[Any, int] = {}
    last: dict[Any, int] = {}
    kernels = _of_kernels(operations)
    more = np.zeros((2, end + 1))  # what an operation needs besides: copies of fused arguments, the inside of loops
    for i, (name, inputs, outputs, eqn) in enumerate(operations):
        made_of = frozenset().union(*(sources.get(v, frozenset((v,))) for v in inputs))
        if name not in _STORED:
            sources.update(dict.fromkeys(outputs, made_of))
            continue
        last.update(dict.fromkeys(made_of, i))
        born.update(dict.fromkeys(outputs, i))
        last.update(dict.fromkeys(outputs, i))
        if name in ("dot_general", "conv_general_dilated", "pallas_call"):
            for v in inputs:
                more[:, i] += sizes(v.aval, mapped, v in kernels) if v in sources else (0, 0)
        more[:, i] += _inside(name, eqn, sizes, mapped)
    for v in (values.get(v, v) for v in jaxpr.outvars if not isinstance(v, core.Literal)):
        last.update(dict.fromkeys(sources.get(v, frozenset((v,))), end))
    change = np.zeros((2, end + 2))
    for v, at in born.items():
        if v not in arguments:
            size = np.array(sizes(v.aval, mapped, v in kernels))
            change[:, at] += size
            change[:, last[v] + 1] -= size
    fixed, each = change.cumsum(1)[:, : end + 1] + more
    written = [sizes(v.aval, mapped, v in kernels) for v in born]
    return Live(fixed, each, Bytes(sum((x.fixed for x in written), 0.0), sum((x.each for x in written), 0.0)))


def _of_kernels(operations: list[_Operation]) -> set[Any]:
    """Returns the arguments and results of kernels, also of those in functions that are mapped."""
    found: set[Any] = set()
    for name, inputs, outputs, eqn in operations:
        if name == "pallas_call":
            found.update(inputs, outputs)
        if name == "shard_map":
            inner = next(iter(core.jaxprs_in_params(eqn.params)))
            own: list[_Operation] = []
            values: dict[Any, Any] = {v: v for v in inner.invars}
            _inline(inner, values, own)
            within = _of_kernels(own)
            found.update(v for v, out in zip(outputs, inner.outvars, strict=True) if values.get(out, out) in within)
    return found


def _inside(name: str, eqn: Any, sizes: Sizes, mapped: bool) -> np.ndarray:
    """Returns the peak inside a loop, a branch or a mapped function; of one example a device."""
    if name not in ("scan", "while", "cond", "shard_map"):
        return np.zeros(2)
    peaks = []
    for inner in core.jaxprs_in_params(eqn.params):
        found = _live(inner, sizes, mapped or name == "shard_map")
        at = int((found.fixed + EXAMPLES * found.each).argmax()) if len(found.fixed) else 0
        peaks.append(np.array([found.fixed[at], found.each[at]]))
    return max(peaks, key=sum, default=np.zeros(2))


def _inline(jaxpr: core.Jaxpr, values: dict[Any, Any], operations: list[_Operation]) -> None:
    """Appends the operations of a jaxpr and of what it calls; `values` says what its variables are in the whole."""
    for eqn in jaxpr.eqns:
        inputs = [values.get(v, v) for v in eqn.invars if not isinstance(v, core.Literal)]
        called = next(iter(core.jaxprs_in_params(eqn.params)), None) if eqn.primitive.name in _INLINED else None
        if called is not None:
            inputs = [_Value(v.aval) if isinstance(v, core.Literal) else values.get(v, v) for v in eqn.invars]
            own: dict[Any, Any] = dict(zip(called.invars, inputs, strict=True))
            own |= {v: _Value(v.aval) for v in called.constvars}
            _inline(called, own, operations)
            for outer, inner in zip(eqn.outvars, called.outvars, strict=True):
                values[outer] = _Value(outer.aval) if isinstance(inner, core.Literal) else own.get(inner, inner)
            continue
        outputs = [_Value(v.aval) for v in eqn.outvars]
        values.update(zip(eqn.outvars, outputs, strict=True))
        operations.append(_Operation(eqn.primitive.name, inputs, outputs, eqn))


def held(like: Any) -> dict[tuple[int, ...], int]:
    """Returns the elements that one device holds of parameters of each shape, the least of those that share one."""
    found: dict[tuple[int, ...], int] = collections.defaultdict(lambda: 2**62)
    for leaf in jax.tree.leaves(like):
        found[leaf.shape] = min(found[leaf.shape], math.prod(leaf.sharding.shard_shape(leaf.shape)))
    return dict(found)
