"""Per-call arguments of the compiled program, other than weights and pictures, computed on the host.

A picture starts as `signal` latents + `noise` eps. That serves every task:

    from noise              signal 0, noise 1 (or the factor of the authors' sampler)
    from a picture          the tail of a grid; signal alpha(t_0), noise sigma(t_0)
    back to noise           `ddim_inverse`, the grid upwards; signal alpha(t_last), noise 0
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff import sampling
from jaxdiff.diffusion import schedule as schedules
from jaxdiff.diffusion.schedule import Discrete, Schedule
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.scheduler import Process
from jaxdiff.sampling.registry import lookup

Sampler = str | Mapping[str, Any] | None
"""A name in `sampling.SAMPLERS`; or a scheduler_config.json of diffusers; None is the one the model came with."""


class Plan(NamedTuple):
    """Numbers that all pictures of a call share; all are arguments of the compiled program.

    Attributes:
      table: the sampler, with guidance and the like in `aux`.
      signal, noise: what the first picture is made of.
      weights: weights of LoRAs [n], ControlNets [n] and the T2I-adapter [], by these names.
      timesteps: [2, N] the timesteps of the table's calls, rising, and what the network is called with instead of each:
        some of the reference library's samplers round them.
      low: alpha and sigma of the noise on the low resolution picture of an upscaler.
    """

    table: sampling.Table
    signal: Any
    noise: Any
    weights: Mapping[str, Any]
    timesteps: Any
    low: Any = (1.0, 0.0)


def make(
    process: Process,
    config: Mapping[str, Any] | None = None,
    *,
    steps: int,
    sampler: Sampler = None,
    grid: str | None = None,
    eta: float | None = None,
    strength: float | None = None,
    start: str = "noise",
    part: tuple[float | None, float | None] = (None, None),
    until: float | None = None,
    weights: Mapping[str, Any],
    low: tuple[float, float] = (1.0, 0.0),
    **aux: float,
) -> Plan:
    """Returns the plan of a call.

    Args:
      process: the model's.
      config: its scheduler_config.json, which a given one need not repeat; None for a model that was trained here.
      steps: steps of the whole grid.
      sampler: None takes the model's. By name, a published model keeps its own spacing, offset and end.
      grid: the name of a grid; None takes the model's, or the sampler's.
      eta: noise of each step, for samplers that have it.
      strength: the part of the grid that is walked, its end; None: all.
      part: from where to where of the way from noise to data, 0 to 1, the grid is walked, of several models that share
        it; a walk that does not begin at noise starts from what the one before it left. None: all.
      start: `noise`; `picture`: a picture with noise; `hole`: the same, but at strength 1 nothing of it is left.
      until: the log-SNR at which the walk ends, of a model that was trained here; None: at data.
      weights: see `Plan`.
      low: see `Plan`.
      aux: what the denoiser gets at each call.

    Raises:
      ValueError: for an unknown sampler or grid, another process, or steps that cannot be made.
    """
    schedule = process.schedule
    if isinstance(schedule, Discrete) and not 1 <= steps <= schedule.steps:
        raise ValueError(f"steps is {steps}: this model was trained on {schedule.steps}, so 1 to {schedule.steps} work")
    chosen = _chosen(process, config, sampler)
    if chosen.sampler in sampling.INVERSIONS and start == "noise":
        raise ValueError(f"{chosen.sampler} makes noise of a picture, and no picture of noise: pass image, the picture")
    if grid is not None:
        lookup("grid", grid, sampling.grid.GRIDS)
        chosen = dataclasses.replace(chosen, grid=grid)
    calls = chosen.calls(steps)
    times = calls.times if strength is None else sampling.grid.cut(calls.times, strength)
    if part != (None, None):
        if strength is not None:
            raise ValueError("strength does not go with denoising_start or denoising_end: leave it out")
        times = _part(calls, schedule, *part)
    if until is not None:
        times = _ended(process, config, chosen, times, until)
    table = chosen.table(times, steps, **({} if eta is None else {"eta": eta}))
    timesteps = chosen.timesteps(calls, table.t)
    # the levels are the sampler's, and the model's schedule may call them by other times
    table = dataclasses.replace(table, t=schedule.time(chosen.schedule.log_snr(table.t)))
    own = schedule.timestep(table.t)
    # where each call leaves the picture, as far as its next one knows
    after = [np.append(f(table.t[1:]), last) for f, last in ((schedule.alpha, 1.0), (schedule.sigma, 0.0))]
    table = sampling.with_aux(table, **aux, next_alpha=after[0], next_sigma=after[1])
    signal, noise = 0.0, chosen.start(times)
    if chosen.sampler in sampling.INVERSIONS:
        signal, noise = float(chosen.schedule.alpha(times[-1:])[0]), 0.0
    elif start == "picture" or (start == "hole" and strength != 1):
        signal, noise = (float(f(times[:1])[0]) for f in (chosen.schedule.alpha, chosen.schedule.sigma))
    if part[0] is not None:
        # where a class works on x / alpha, that is what the walk before it returned
        signal, noise = (float(chosen.schedule.alpha(times[:1])[0]) if chosen.alone else 1.0), 0.0
    order = np.argsort(own, kind="stable")
    plan = Plan(table, signal, noise, weights, np.stack([own[order], timesteps[order]]), low)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), plan)


def _part(calls: Any, schedule: Any, first: float | None, last: float | None) -> Any:
    """Returns the grid of those calls that lie in a part of the way, by the steps that the network is called with.

    Source: Balaji et al. 2022, arXiv 2211.01324 (an ensemble of denoisers), as SDXL and its refiner share a grid.
    """
    if not isinstance(schedule, Discrete):
        raise ValueError("denoising_start and denoising_end are for models that were trained on whole steps")
    ends = []
    for name, at, otherwise in (("denoising_start", first, 0), ("denoising_end", last, len(calls.timesteps))):
        if at is not None and not 0 < at < 1:
            raise ValueError(f"{name} is {at}: expected a number between 0 and 1")
        ends.append(otherwise if at is None else int((calls.timesteps >= round(schedule.steps * (1 - at))).sum()))
    if ends[0] >= ends[1]:
        raise ValueError(
            f"no call of {len(calls.timesteps)} steps lies between denoising_start {first} and denoising_end {last}: "
            "expected a wider part, or more steps"
        )
    return calls.times[ends[0] : ends[1] + 1]


def _ended(process: Process, config: Any, chosen: Process, times: Any, until: float) -> Any:
    """Returns the grid as far as a log-SNR, which becomes its end."""
    if config is not None or process.says == "consistency":
        raise ValueError(
            "a walk that ends in noise is for models of our own training that take many steps: leave it out"
        )
    last = float(chosen.schedule.time(np.array([until]))[0])
    kept = times[times > last * (1 + 1e-6)]
    if not len(kept):
        raise ValueError(f"the walk ends at time {last:.4f}, where it begins: choose a lower level of noise")
    return np.append(kept, last)


def kandinsky_start(strength: float) -> tuple[np.float32, np.float32]:
    """Returns the shares of picture and noise that Kandinsky 2.1 starts from.

    They are of DDPM's linear betas, which are not its own, at two steps before the last: as its authors have it.
    """
    at = np.array([max(int(1000 * strength) - 1, 0) / 1000])
    schedule = schedules.linear()
    return np.float32(schedule.alpha(at)[0]), np.float32(schedule.sigma(at)[0])


def _chosen(process: Process, config: Mapping[str, Any] | None, sampler: Sampler) -> Process:
    """Returns the sampler that is asked for, for the same process: the model's, one by name, or another config's."""
    chosen = _asked(process, config, sampler)
    if process.says == "consistency" and chosen.sampler != process.sampler:
        raise ValueError(
            f"sampler is {chosen.sampler}: this few-step model maps noise to pictures at once, and only "
            f"{process.sampler} makes use of that; leave the sampler out"
        )
    return chosen


def _asked(process: Process, config: Mapping[str, Any] | None, sampler: Sampler) -> Process:
    if sampler is None or (config is None and sampler == process.sampler):
        return process
    if isinstance(sampler, str):
        if config is None:
            return scheduler.native(process.schedule, process.kind, sampler, clip=process.clip)
        return scheduler.sampled(process, config, sampler)
    chosen = scheduler.process({**scheduler.said(config or {}), **sampler})
    if chosen.kind != process.kind or not _equal(chosen.schedule, process.schedule):
        raise ValueError(
            f"the given {sampler.get('_class_name')} has another process than the model: it predicts {chosen.kind}, "
            f"the model {process.kind}, or their betas differ; leave prediction_type and beta_* out of it"
        )
    return chosen


def _equal(a: Schedule, b: Schedule) -> bool:
    """Returns whether two schedules are the same, but for the last step of zero terminal SNR, which some put near 0."""
    if isinstance(a, Discrete) and isinstance(b, Discrete):
        last = min(len(a.knots), len(b.knots))
        return a.steps == b.steps and np.array_equal(a.knots[:last], b.knots[:last])
    leaves, other = jax.tree.leaves(a), jax.tree.leaves(b)
    return type(a) is type(b) and len(leaves) == len(other) and all(map(np.array_equal, leaves, other))
