"""Solvers with two calls a step in the noise level s: Heun, EDM, DPM2, DPM-Solver++ 2S, their noisy forms, and restart.

In z = x / alpha and s = sigma / alpha every probability-flow ODE is dz / ds = (z - D) / s = d, straight where D is
constant (EDM, arXiv 2206.00364, equation 4). A step from s to a lower s' evaluates d at s, walks to a second point,
evaluates there and combines:

    rule          second point                       result
    heun          z + (s' - s) d at s'               z + (s' - s)(d + d2) / 2
    midpoint      z + (m - s) d at m = sqrt(s s')    z + (s' - s) d2
    exponential   the same                           (s' / s) z + (1 - s' / s) D2

The last rule is DPM-Solver++ 2S with r = 1/2: D2 held constant. A step to s' = 0 is a single call, z = D.

Noise makes the other members. After the step, noise of deviation `up` lifts the level to sqrt(s'^2 + up^2). Ancestral
samplers aim below the next level by as much as they lift (`ancestral`); EDM's churn lifts before each step, which here
is after the one before; restart lifts far, from the bottom of an interval back to its top.

A rectified flow is the same with z = x and s = sigma: there (x - D) / sigma is the velocity eps - x0, and nothing
divides by alpha, which is 0 at its start.
"""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check
from jaxdiff.sampling.solvers.ddim import check_eta
from jaxdiff.sampling.table import Table, from_rows, symbols

Rule = Literal["heun", "midpoint", "exponential"]


class Move(NamedTuple):
    """From level `start` down to `end`, then up by noise of deviation `up`."""

    start: float
    end: float
    up: float = 0.0


def levels(schedule: Schedule, times: Grid) -> np.ndarray:
    """Returns the values of sigma / alpha at the times of a grid."""
    times = check(times)
    if schedule.alpha(times[0]) == 0:
        raise ValueError(
            f"alpha is 0 at times[0] = {times[0]}, where sigma / alpha has no value: start below, or use ddim, "
            "dpmpp_2m, unipc or flow_heun"
        )
    return schedule.sigma(times) / schedule.alpha(times)


def from_levels(schedule: Schedule, s: Sequence[float] | np.ndarray, rows: Any, flow: bool = False) -> Table:
    """Returns a table from rows written in z, with the level of each call and, last, of the result; slot 0 holds x."""
    s = np.asarray(s, np.float64)
    with np.errstate(divide="ignore"):
        t = schedule.time(2 * (np.log1p(-s) - np.log(s)) if flow else -2 * np.log(s))
    scale = np.ones_like(s) if flow else schedule.alpha(t)
    coefficients = np.array(rows)
    coefficients[:, :, 0] /= scale[:-1, None]
    coefficients[:, 0] *= scale[1:, None]
    return from_rows(t[:-1], coefficients)


def two_stage(schedule: Schedule, moves: Sequence[Move], rule: Rule, flow: bool = False) -> Table:
    """Returns the table that makes the moves one after another.

    With `flow` levels are sigma and states are x itself.
    """
    (z, kept), D, noise = symbols(2)
    called, rows = [], []
    for s, end, up in moves:
        d = (z - D) / s
        if end == 0:
            called += [s]
            rows += [[D + up * noise, D]]
            continue
        m = end if rule == "heun" else np.sqrt(s * end)
        d2 = (z - D) / m
        halfway = z + (end - s) / 2 * d if rule == "heun" else z
        after = {
            "heun": kept + (end - s) / 2 * d2,
            "midpoint": kept + (end - s) * d2,
            "exponential": end / s * kept + (1 - end / s) * D,
        }[rule]
        called += [s, m]
        rows += [[z + (m - s) * d, halfway], [after + up * noise, kept]]
    return from_levels(schedule, [*called, np.hypot(*moves[-1][1:])], rows, flow)


def ancestral(s: float, to: float, eta: float = 1.0) -> Move:
    """Aims below `to` and lifts to it: up = eta to sqrt(1 - to^2 / s^2), end = sqrt(to^2 - up^2).

    With eta = 1 it is the posterior of DDPM. Source: Crowson, k-diffusion.
    """
    up = eta * to * np.sqrt(1 - (to / s) ** 2)
    return Move(s, np.sqrt(to**2 - up**2), up)


def heun(schedule: Schedule, times: Grid) -> Table:
    """Returns the coefficients of Heun's method in the noise level.

    Source: Karras et al. 2022, arXiv 2206.00364, algorithm 1.
    """
    s = levels(schedule, times)
    return two_stage(schedule, list(map(Move, s[:-1], s[1:])), "heun")


def flow_heun(schedule: Schedule, times: Grid) -> Table:
    """Returns the coefficients of Heun's method for a rectified flow, alpha = 1 - sigma.

    Raises:
      ValueError: if the schedule is not a rectified flow.

    Source: Esser et al. 2024, arXiv 2403.03206, section 2.
    """
    s = schedule.sigma(check(times))
    if not np.allclose(schedule.alpha(times) + s, 1):
        raise ValueError("flow_heun takes a schedule with alpha = 1 - sigma, such as schedule.flow(); use heun instead")
    return two_stage(schedule, list(map(Move, s[:-1], s[1:])), "heun", flow=True)


def edm(
    schedule: Schedule,
    times: Grid,
    churn: float = 0.0,
    low: float = 0.0,
    high: float = np.inf,
    extra: float = 1.0,
) -> Table:
    """Returns the coefficients of EDM's stochastic Heun sampler.

    Before each step from a level in [low, high], noise lifts it by a factor 1 + min(churn / steps, sqrt(2) - 1). The
    first step is not lifted: its picture is noise already.

    Args:
      schedule: the process.
      times: strictly decreasing.
      churn: S_churn; 0 is Heun.
      low: S_tmin, in units of sigma / alpha.
      high: S_tmax.
      extra: S_noise, which scales the noise but not the level that is assumed.

    Source: Karras et al. 2022, arXiv 2206.00364, algorithm 2.
    """
    s = levels(schedule, times)
    gamma = np.where((s >= low) & (s <= high), min(churn / (len(s) - 1), np.sqrt(2) - 1), 0.0)
    lifted = s * (1 + gamma)
    lifted[0] = s[0]
    up = np.sqrt(lifted**2 - s**2)
    table = two_stage(schedule, list(map(Move, lifted[:-1], s[1:], up[1:])), "heun")
    return dataclasses.replace(table, c=table.c * extra)


def kdpm2(schedule: Schedule, times: Grid) -> Table:
    """Returns the coefficients of DPM-Solver-2 in the noise level ("DPM2", "KDPM2"), its midpoint in log s.

    Source: Karras et al. 2022, arXiv 2206.00364, appendix; Lu et al. 2022, arXiv 2206.00927, algorithm 1.
    """
    s = levels(schedule, times)
    return two_stage(schedule, list(map(Move, s[:-1], s[1:])), "midpoint")


def kdpm2_ancestral(schedule: Schedule, times: Grid, eta: float = 1.0) -> Table:
    """Returns the coefficients of ancestral DPM-Solver-2. Source: Crowson, k-diffusion."""
    check_eta(eta)
    s = levels(schedule, times)
    return two_stage(schedule, [ancestral(a, b, eta) for a, b in pairwise(s)], "midpoint")


def dpmpp_2s_ancestral(schedule: Schedule, times: Grid, eta: float = 1.0) -> Table:
    """Returns the coefficients of ancestral DPM-Solver++ 2S, its midpoint in log s; eta = 0 is the ODE.

    Source: Crowson, k-diffusion; Lu et al. 2022, arXiv 2211.01095, algorithm 1, for the ODE.
    """
    check_eta(eta)
    s = levels(schedule, times)
    return two_stage(schedule, [ancestral(a, b, eta) for a, b in pairwise(s)], "exponential")


def dpmpp_sde(schedule: Schedule, times: Grid, eta: float = 1.0) -> Table:
    """Returns the coefficients of DPM-Solver++ SDE: 2S ancestral with an ancestral step to its second point too.

    Both steps of one interval see the same Brownian path W(s), so the noise of the whole is the first half's and
    a fresh second half's, sqrt(s - s') noise = sqrt(s - m) noise_1 + sqrt(m - s') noise_2.

    Source: Crowson, k-diffusion.
    """
    check_eta(eta)
    s = levels(schedule, times)
    (z, kept, early), D, noise = symbols(3)
    called, rows = [], []
    for a, b in pairwise(s):
        if b == 0:
            called += [a]
            rows += [[D, kept, early]]
            continue
        m = np.sqrt(a * b)
        half, full = ancestral(a, m, eta), ancestral(a, b, eta)
        path = (np.sqrt(a - m) * early + np.sqrt(m - b) * noise) / np.sqrt(a - b)
        called += [a, m]
        rows += [
            [D + half.end / a * (z - D) + half.up * noise, z, noise],
            [D + full.end / a * (kept - D) + full.up * path, kept, early],
        ]
    return from_levels(schedule, [*called, s[-1]], rows)


def restart(
    schedule: Schedule,
    times: Grid,
    low: float = 0.1,
    high: float = 0.3,
    repeats: int = 2,
    descent: int = 4,
) -> Table:
    """Returns the coefficients of Restart: Heun, which at the interval's lower end goes back up and down again.

    Args:
      schedule: the process.
      times: strictly decreasing; the walk through the interval is repeated where the grid first falls below `low`.
      low: the time at which the interval ends.
      high: the time to which noise lifts it.
      repeats: how often.
      descent: Heun steps on each way down, on Karras levels.

    Source: Xu et al. 2023, arXiv 2306.14878, algorithm 1.
    """
    s = levels(schedule, times)
    if not times[-1] < low < high < times[0] or descent < 1 or repeats < 1:
        raise ValueError(
            f"low = {low}, high = {high}, repeats = {repeats}, descent = {descent}: the interval must lie inside "
            f"the grid, {times[-1]} < low < high < {times[0]}, with at least one step and one repeat"
        )
    bottom, top = levels(schedule, np.array([high, low]))[::-1]
    down = np.linspace(top ** (1 / 7), bottom ** (1 / 7), descent + 1) ** 7
    path = [*s[s > bottom], bottom]
    moves = list(map(Move, path[:-1], path[1:]))
    for _ in range(repeats):
        moves[-1] = moves[-1]._replace(up=np.sqrt(top**2 - bottom**2))
        moves += map(Move, down[:-1], down[1:])
    rest = [bottom, *s[s < bottom]]
    return two_stage(schedule, [*moves, *map(Move, rest[:-1], rest[1:])], "heun")
