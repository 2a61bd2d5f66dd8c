"""Compiling for chips that are not here, by their own compiler, libtpu."""

import contextlib
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

from jaxdiff.dryrun import collectives
from jaxdiff.metrics.chips import Topology

START, CONVOLUTION, PRODUCT = 25.0, 1.4, 0.3
"""CPU seconds that libtpu takes for a program, and more for a convolution of 64 channels and a product: a fit to five
programs of 12 to 35 convolutions and 10 to 233 products, compiled for v5e on two cores of an AMD EPYC (Zen 4)."""
GROWTH = 0.75
"""The power of its channels that a convolution's seconds grow with: those of Stable Diffusion's U-Net take about 10."""
_USED = re.compile(
    r"[Uu]sed ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm|"
    r"memory required .*\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"
)
"""Matches what libtpu says of a program that is too large, before or after it has compiled it, with the numbers."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class TooLargeError(ValueError):
    """The compiler refuses a program, since it does not fit the memory of the chip; the message has the numbers."""


def devices(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a topology, to be compiled for.

    Raises:
      ValueError: if libtpu is not installed, or does not know the topology.
    """
    from jax.experimental import topologies

    # without these libtpu looks for the chips of this machine
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    slices = {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        return list(topologies.get_topology_desc(topology.name, "tpu", **slices).devices)
    except RuntimeError as error:
        if "not installed" in str(error):
            raise ValueError(
                "--compile needs the compiler of the chip, libtpu, which is not installed: pip install 'jaxdiff[tpu]', "
                "or leave --compile out for the estimate"
            ) from None
        raise ValueError(f"libtpu knows no topology {topology.name}: {str(error).splitlines()[0]}") from error


def seconds(jaxpr: core.Jaxpr) -> float:
    """Returns about how many CPU seconds libtpu will take for a program."""
    return START + _seconds(jaxpr)


def _seconds(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            kernel: Any = eqn.invars[1].aval
            channels = math.sqrt(math.prod(kernel.shape[dim] for dim in eqn.params["dimension_numbers"].rhs_spec[:2]))
            total += CONVOLUTION * max(channels / 64, 1.0) ** GROWTH
        total += PRODUCT * (eqn.primitive.name == "dot_general")
        total += sum(_seconds(inner) for inner in core.jaxprs_in_params(eqn.params))
    return total


def compile(lowered: Any, expected: int | float, tell: Callable[..., None], every: float = 10.0) -> Any:
    """Compiles a `jax.stages.Lowered`, telling how long it has taken every so many seconds.

    Args:
      lowered: the program.
      expected: CPU seconds that it will take; 0 is not said.
      tell: called with the stage and a detail.
      every: seconds.

    Raises:
      TooLargeError: if it does not fit.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    of = f" of about {expected / cores:.0f} s on {cores} cores" if expected else ""
    with _ticking(lambda spent: tell("compiles", f": {spent:.0f} s{of}"), every):
        try:
            return lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if found := _USED.search(str(error)):
                number, unit, most, its = (one for one in found.groups() if one is not None)
                used, usable = float(number) * _UNITS[unit] / 2**30, float(most) * _UNITS[its] / 2**30
                raise TooLargeError(
                    f"needs {used:.4g} of {usable:.4g} GiB: the chip's own compiler says so; without --compile it is "
                    "said what helps"
                ) from None
            raise


def memory(executable: Any) -> dict[str, int]:
    """Returns the bytes of one device by what holds them; results that reuse an argument are not counted twice."""
    sizes = executable.memory_analysis()
    return {
        "arguments": sizes.argument_size_in_bytes,
        "results": sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        "temporaries": sizes.temp_size_in_bytes,
        "program": sizes.generated_code_size_in_bytes,
    }


def contents(executable: Any) -> tuple[dict[str, float], int]:
    """Returns the bytes by kind of collective in a program, and how many kernels of Pallas it calls."""
    text = executable.as_text()
    return collectives.read(text), text.count('custom_call_target="tpu_custom_call"')


@contextlib.contextmanager
def _ticking(tell: Callable[[float], None], every: float) -> Iterator[None]:
    """Calls `tell` with the seconds since it began, now and every so many, in a thread."""
    began, stop = time.monotonic(), threading.Event()

    def tick() -> None:
        tell(0.0)
        while not stop.wait(every):
            tell(time.monotonic() - began)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
