"""A dry run's figures as lines that a person reads."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import jax

from jaxdiff.dryrun import estimate
from jaxdiff.dryrun.figures import Figures
from jaxdiff.metrics.chips import GIB, Topology


@dataclasses.dataclass(frozen=True)
class Way:
    """Something that may make a program fit.

    Attributes:
      option: to be given, '--mesh.fsdp 16'.
      figures: figures of the program with it.
    """

    option: str
    figures: Figures


def size(count: int | float) -> str:
    """Returns bytes as people write them."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"


def work(flops: int | float) -> str:
    """Returns FLOPs as people write them."""
    for unit, name in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if flops >= unit:
            return f"{flops / unit:.4g} {name}"
    return f"{flops / 1e6:.4g} MFLOP"


def time(seconds: float) -> str:
    """Returns a duration as people write it."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def lines(figures: Figures, topology: Topology | None, program: str = "a step") -> Iterator[str]:
    """Gives the report, without the verdict."""
    f, trains = figures, program == "a step"
    where = f"{topology.name}{f' x {topology.slices} slices' if topology.slices > 1 else ''}, " if topology else ""
    yield f"devices: {where}{f.devices}, mesh {f.mesh}"
    yield f"parameters: {f.parameters:,}"
    kept = "state" if trains else "weights"
    yield f"{kept}: {size(f.state)} in all; with the batch {size(f.held)} on a device (exact)"
    known = estimate.distance("tpu" if topology else jax.default_backend(), f.temporary)
    yield f"activations: {size(f.temporary)} on a device (estimated{', with gradients' if trains else ''}; {known})"
    yield f"peak: {size(f.peak)} on a device (estimated)"
    again = f", of which {work(f.repeated)} recompute what is not kept" if f.repeated else ""
    yield f"work: {work(f.flops)} {program} of {f.batch}, {work(f.flops / f.batch)} an example{again} (counted)"
    sent = ", ".join(f"{kind} {size(count)}" for kind, count in sorted(f.sent.items()) if count) or "none"
    yield f"collectives {program}: {sent} (estimated from shardings; sums over tensor are not in it)"
    yield "weights:"
    for group in f.groups:
        yield f"  {group.how}: {group.arrays} arrays, {size(group.total)} in all, {size(group.held)} on a device"
        yield f"    the largest is {group.largest}"
    if topology:
        yield from bound(f, topology, program)


def bound(f: Figures, topology: Topology, program: str) -> Iterator[str]:
    """Gives what the chip allows."""
    seconds = f.bound(topology)
    slowest = max(seconds, key=lambda name: seconds[name])
    parts = ", ".join(f"{name} {time(value)}" for name, value in seconds.items())
    rate = f.batch / seconds[slowest] / (f.devices / topology.chip.cores)
    yield (
        f"roofline bound, from published rates and no forecast: {program} takes at least {time(seconds[slowest])} "
        f"({slowest}; {parts}), at most {rate:.3g} examples/s a chip"
    )


def verdict(f: Figures, topology: Topology, ways: Callable[[], list[Way]], unit: str = "batch") -> str:
    """Returns whether the program fits, and where it does not what would make it fit.

    Args:
      f: its figures.
      topology: what it should fit.
      ways: makes the programs that other options give; only called where it does not fit.
      unit: the option that says how many examples there are.
    """
    memory, most = topology.chip.memory, f.largest(topology.chip.memory)
    of = f"{f.peak / GIB:.3g} of {memory / GIB:.4g} GiB"
    if f.peak <= memory:
        return f"fits, {of} (estimated); the largest {unit} that fits is {most} a device, {most * f.ways} in all"
    helps = [way.option for way in ways() if way.figures.peak <= memory]
    if most:
        helps.append(f"{unit} {most} a device ({most * f.ways} in all)")
    if not helps:
        return f"needs {of} (estimated): not one example fits on any mesh; take more or larger chips"
    return f"needs {of} (estimated): {', '.join(helps[:-1])}{', or ' if helps[1:] else ''}{helps[-1]}"


def compiled(
    figures: Figures, memory: Mapping[str, int], sent: Mapping[str, float], kernels: int, topology: Topology
) -> Iterator[str]:
    """Gives what the compiler says; its memory is exact."""
    total, usable = sum(memory.values()), topology.chip.memory
    parts = ", ".join(f"{name} {size(count)}" for name, count in memory.items())
    yield f"compiled for {topology.name}: {size(total)} on a device ({parts})"
    yield f"activations: {memory['temporaries'] / max(figures.temporary, 1):.2f} of the estimate"
    named = ", ".join(f"{kind} {size(count)}" for kind, count in sorted(sent.items())) or "none"
    yield f"collectives in the program: {named} (the body of a loop once)"
    yield f"kernels of our own in the program, such as flash attention: {kernels}"
    yield f"fits, {total / GIB:.3g} of {usable / GIB:.4g} GiB (compiled)"
