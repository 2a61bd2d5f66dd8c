"""One program measured: what it costs to compile and to run, beside the machine's peak and its peers."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.benchmarks.programs import BenchProgram
from jaxdiff.benchmarks.torch_peer import NoPeerError
from jaxdiff.metrics import speed
from jaxdiff.nn.conv import direct_convolutions
from jaxdiff.parallel import MeshSpec, make_mesh

Side = Callable[[int], Any]


def measure(
    case: BenchProgram,
    devices: Sequence[jax.Device],
    rounds: int,
    peers: Callable[[BenchProgram], Mapping[str, Side]] = lambda case: {},
    profile: Path | None = None,
    tell: Callable[..., None] = lambda stage, detail="": None,
) -> dict[str, Any]:
    """Returns the record of a program, as it goes into the JSON; times in seconds, ratios are ours / theirs.

    `flops` are those that the architecture asks for, `executed` those that the program does; see `metrics.speed`.

    Args:
      case: the program.
      devices: those it was made for.
      rounds: timed calls of each side.
      peers: the same work elsewhere, made after our memory has been read.
      profile: gets a trace of one call more.
      tell: is called with what is being done now, and with how far it is.
    """
    with jax.set_mesh(make_mesh(MeshSpec(), devices)):
        tell("compiling")
        traced, trace_s = _timed(lambda: case.program.trace(*case.arguments(0)))
        lowered, lower_s = _timed(traced.lower)
        compiled, compile_s = _timed(lowered.compile)
        tell("first calls")
        speed.reset_memory()
        _, first_s = _timed(lambda: jax.block_until_ready(case(0)))
        with speed.compilations() as again:
            jax.block_until_ready(case(1))
        memory = speed.peak_memory()
        executed, cost = speed.work(traced.jaxpr), speed.cost(compiled)
        with direct_convolutions(True):
            asked = speed.work(case.program.trace(*case.arguments(0)).jaxpr)
        peak, peak_flops = speed.product(case.dtype)
        others: dict[str, Side] = {"bare": case.bare} if case.bare else {}
        alone = ""
        try:
            others |= peers(case)
        except NoPeerError as error:
            alone = str(error)
        sides: dict[str, Side] = {"jaxdiff": case, "peak": peak, **others}
        times = speed.alternate(sides, rounds, lambda i: tell("measuring", f", round {i + 1} of {rounds}"))
        if profile:
            with jax.profiler.trace(str(profile)):
                jax.block_until_ready(case(0))
    ours = times["jaxdiff"]
    median = float(np.median(ours))
    chips = 1 if devices[0].platform == "cpu" else len(devices)  # virtual devices share the cores
    peaks = chips * peak_flops / times["peak"]
    record = {
        "name": case.name,
        "batch": case.images,
        "devices": len(devices),
        "dtype": case.dtype,
        "calls": case.calls,
        "trace_s": trace_s,
        "lower_s": lower_s,
        "compile_s": compile_s,
        "first_s": first_s,
        "recompiled": again.count,
        "run": _summary(ours),
        "images_per_s_per_device": case.images / median / len(devices),
        "flops": asked.flops,
        "executed": executed.flops,
        "uncounted": list(executed.uncounted),
        "flops_per_s": asked.flops / median,
        "executed_per_s": executed.flops / median,
        "peak_flops_per_s": peak_flops / float(np.median(times["peak"])),
        "of_peak": _summary(asked.flops / ours / peaks),
        "executed_of_peak": _summary(executed.flops / ours / peaks),
        "xla": dataclasses.asdict(cost),
        "memory": memory and {"bytes": memory[0], "of": memory[1]},
        "no_peer": alone,
        "against": {
            name: {"run": _summary(times[name]), "ratio": _ratios(ours, times[name])}
            for name in others
            if name != "bare"
        },
    }
    if case.bare:
        record["bare"] = _summary(times["bare"])
        record["overhead"] = _summary(ours / times["bare"] - 1)
    return record


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def _summary(values: np.ndarray) -> dict[str, Any]:
    return dataclasses.asdict(speed.summary(values))


def _ratios(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    return {name: dataclasses.asdict(s) for name, s in speed.ratios(ours, theirs).items()}
