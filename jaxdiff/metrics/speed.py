"""Speed: what a program costs, how long it takes, and what the machine could do in that time.

**Work.** FLOPs are those of matrix products and convolutions, 2 for each multiply-add, read from the jaxpr:

    a product of [m, k] and [k, n]     2 m k n, for each element of the batch
    a convolution                      2 (outputs) (input channels of a group) (taps of the kernel)
    attention in cuDNN                 its 2 products forward; 5 backward, one of them the scores made again

Taps that fall on the padding count, as in published figures; taps that fall into the holes of a dilated input, which
gradients of strided convolutions have, do not: so a gradient costs what its convolution cost. The body of a loop counts
once for each turn. XLA's own count leaves out both the padding and the turns of a loop, and what libraries called from
its programs do, which is why it is reported but not used.

**Asked for and executed.** A program may do fewer products than its architecture asks for: on a CPU `nn.conv` computes
many 3x3 convolutions in Winograd's form, which has a quarter of them and a few of its own. The field's figure, model
FLOPs utilisation, counts what the architecture asks for whichever form computes it, as one does for cuDNN, which uses
that form too: it compares implementations, and may exceed 1 where products are saved. The executed work tells how well
the machine is used. Both are read from a trace, the first from one inside `nn.conv.direct_convolutions(True)`, where
`nn.resnet.Upsample` too has the 36 products of doubling followed by a convolution instead of 9.

**Time.** Sides take turns, each going first every other round, because neighbours on a machine slow it for minutes:
a figure is the median of the ratios of one round, not the ratio of two medians.
"""

import contextlib
import dataclasses
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.sharding import AbstractDevice, AbstractMesh

_COMPILE = "/jax/core/compile/backend_compile_duration"
_FOREIGN = re.compile(r"pallas_call|.*custom_call.*|ffi_call|while")
_ATTENTION = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}  # products in cuDNN's


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs of a program, and the primitives whose work is not in them: foreign kernels, loops of unknown length."""

    flops: float
    uncounted: tuple[str, ...] = ()


def work(jaxpr: core.ClosedJaxpr) -> Work:
    """Returns the work of a traced program: `jax.make_jaxpr(f)(*args)`, or `jax.jit(f).trace(*args).jaxpr`."""
    missed: set[str] = set()
    return Work(_flops(jaxpr.jaxpr, missed), tuple(sorted(missed)))


def _flops(jaxpr: core.Jaxpr, missed: set[str]) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            total += _product(eqn)
        elif name == "conv_general_dilated":
            total += _convolution(eqn)
        elif name in _ATTENTION:
            q, k = _shape(eqn.invars[0]), _shape(eqn.invars[1])
            total += _ATTENTION[name] * 2.0 * math.prod(q) * k[1]
        else:
            if _FOREIGN.fullmatch(name):
                missed.add(name)
            inner = [_flops(sub, missed) for sub in core.jaxprs_in_params(eqn.params)]
            # both branches of a cond are there and one runs; a mapped body is written for one device
            turns = eqn.params["length"] if name == "scan" else eqn.params["mesh"].size if name == "shard_map" else 1
            total += (_taken(eqn, inner) if name == "cond" else sum(inner)) * turns
    return total


def _taken(eqn: core.JaxprEqn, branches: list[float]) -> float:
    """Returns the work of the branch that runs: of forms by platform this machine's, else the most that any has."""
    platforms = eqn.params.get("branches_platforms")
    if not platforms:
        return max(branches)
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    return next(work for work, names in zip(branches, platforms, strict=True) if names is None or here in names)


def trace(
    function: Callable[..., Any], arguments: Sequence[Any], mesh: Any, platform: str | None = None
) -> core.ClosedJaxpr:
    """Traces a function of shapes under a mesh, whose devices need not exist.

    Args:
      function: (*arguments) -> anything.
      arguments: trees of arrays or shapes.
      mesh: concrete or abstract.
      platform: platform of the mesh's devices; "none" has no forms of its own, which leaves the architecture's
        products.
    """
    device = mesh.abstract_mesh.abstract_device
    if platform is not None:
        device = AbstractDevice(device_kind=platform, num_cores=None, platform=platform)
    described = AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=mesh.axis_types, abstract_device=device)
    bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tuple(arguments))
    with jax.sharding.use_abstract_mesh(described):
        return jax.make_jaxpr(function)(*bare)


def recomputed(jaxpr: core.Jaxpr, turns: int | float = 1.0) -> float:
    """Returns the FLOPs that are done twice: of checkpointed functions of which the gradient is taken.

    Their backward pass, marked as differentiated, holds the forward pass once more.
    """
    blocks = [e for e in jaxpr.eqns if e.primitive.name in ("checkpoint", "remat", "remat2")]
    again = any(e.params["differentiated"] for e in blocks)
    inner = [sub for e in blocks if again and not e.params["differentiated"] for sub in core.jaxprs_in_params(e.params)]
    total = sum((_flops(sub, set()) for sub in inner), 0.0) * turns
    for eqn in jaxpr.eqns:
        if eqn.primitive.name not in ("checkpoint", "remat", "remat2"):
            each = turns * (eqn.params["length"] if eqn.primitive.name == "scan" else 1)
            total += sum(recomputed(sub, each) for sub in core.jaxprs_in_params(eqn.params))
    return total


def _product(eqn: core.JaxprEqn) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = _shape(eqn.invars[0])
    return 2.0 * math.prod(_shape(eqn.outvars[0])) * math.prod(left[d] for d in contracted)


def _convolution(eqn: core.JaxprEqn) -> float:
    p, kernel, out = eqn.params, _shape(eqn.invars[1]), _shape(eqn.outvars[0])
    rhs, result = p["dimension_numbers"].rhs_spec, p["dimension_numbers"].out_spec
    taps = 1
    for d, (low, _) in enumerate(p["padding"]):
        o, k = np.arange(out[result[2 + d]]), np.arange(kernel[rhs[2 + d]])
        place = o[:, None] * p["window_strides"][d] + k * p["rhs_dilation"][d] - low
        taps *= int((place % p["lhs_dilation"][d] == 0).sum())
    return 2.0 * taps * out[result[0]] * out[result[1]] * kernel[rhs[1]]


def _shape(value: Any) -> tuple[int, ...]:
    return value.aval.shape


@dataclasses.dataclass(frozen=True)
class Summary:
    """Repeats of one measurement: median, quartiles, minimum, and how many there were."""

    median: float
    lower: float
    upper: float
    minimum: float
    count: int


def summary(values: Sequence[float] | np.ndarray) -> Summary:
    """Returns the summary of at least one value."""
    lower, median, upper = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return Summary(median, lower, upper, float(np.min(values)), len(values))


def alternate(
    sides: Mapping[str, Callable[[int], Any]], rounds: int, tell: Callable[[int], None] = lambda i: None
) -> dict[str, np.ndarray]:
    """Returns seconds of each side in each round; the order is reversed every other round, and side(i) is round i.

    A turn is a call that is not timed and one that is, as calls of one program follow each other in use: on a CPU XLA
    gives its memory back after a call, and getting it again right after another library's turn takes a third more.
    `tell` is called with each round that begins.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}: expected at least 1")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds):
        tell(i)
        for name in list(sides)[:: -1 if i % 2 else 1]:
            jax.block_until_ready(sides[name](i))
            began = time.perf_counter()
            jax.block_until_ready(sides[name](i))
            times[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in times.items()}


def ratios(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Summary]:
    """Returns ours / theirs of each round: of `all`, and of those in which our side went `first` and `second`."""
    each = ours / theirs
    parts = {"all": each, "first": each[::2], "second": each[1::2]}
    return {name: summary(part) for name, part in parts.items() if len(part)}


def product(dtype: str = "float32", size: int | None = None) -> tuple[Callable[[int], jax.Array], float]:
    """Returns a large matrix product as a side for `alternate`, and its FLOPs: what the machine can do.

    `size` is the side of the matrices, which are not the same in two rounds: by default 2048 on a CPU, 8192 elsewhere.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a, *others = (jax.random.normal(jax.random.key(i), (size, size), jnp.dtype(dtype)) for i in range(3))
    multiply = jax.jit(jnp.matmul)
    return lambda i: multiply(a, others[i % 2]), 2.0 * size**3


@dataclasses.dataclass
class Compilations:
    """The number of programs that the compiler was given, and the time that it took."""

    count: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def compilations() -> Iterator[Compilations]:
    """Counts what is compiled meanwhile, in the whole process; a program found in the cache on disk counts too."""
    seen = Compilations()

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILE:
            seen.count += 1
            seen.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@dataclasses.dataclass(frozen=True)
class Cost:
    """XLA's account of a compiled program.

    Attributes:
      flops: its own count; see the module docstring for what it leaves out.
      bytes: read and written by its operations, the bodies of loops once.
      memory: memory of one device: arguments, results that reuse none of them, and temporaries.
    """

    flops: float | None
    bytes: float | None
    memory: int | None


def cost(compiled: Any) -> Cost:
    """Returns the cost of a `jax.stages.Compiled`; None for what this platform does not tell."""
    costs = compiled.cost_analysis() or {}
    sizes = compiled.memory_analysis()
    memory = sizes and (
        sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes + sizes.temp_size_in_bytes
    )
    return Cost(costs.get("flops"), costs.get("bytes accessed"), memory)


def reset_memory() -> None:
    """Lets `peak_memory` of the process start anew, where Linux allows it; allocators of accelerators go on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> tuple[int, str] | None:
    """Returns the most bytes held so far, and by what: the first device's allocator, or this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"], "device"
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return 1024 * int(found[1]), "process"
    return None


def machine() -> dict[str, Any]:
    """Describes the machine that the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()):
            cpu = found[1]
    devices = jax.devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "devices": len(devices),
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "os": platform.platform(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "date": time.strftime("%Y-%m-%d"),
    }
