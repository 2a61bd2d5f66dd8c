"""Linear multistep methods in eps: LMS, and the pseudo-numerical PLMS, PNDM and iPNDM.

In z = x / alpha and s = sigma / alpha the probability-flow ODE reads dz / ds = eps. LMS integrates the polynomial
through the last estimates of eps, in s, over the real grid: variable-step Adams-Bashforth (k-diffusion).

The pseudo-numerical methods (PNDM, Liu et al. 2022, arXiv 2202.09778) put an average of the last eps into DDIM's step,
the "transfer part", with the fixed weights of Adams-Bashforth on an even grid (`EVEN`). They differ in how they start.
PNDM makes its first three steps by Runge-Kutta (its four calls at t, the middle twice, and s); PLMS does its first step
twice, with the mean of eps at both its ends; iPNDM (Zhang & Chen 2023, arXiv 2204.13902) starts at first order.
"""

from itertools import pairwise
from typing import Literal

import numpy as np

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check, trained_steps
from jaxdiff.sampling.solvers.ddim import lands
from jaxdiff.sampling.solvers.exponential import weights
from jaxdiff.sampling.solvers.two_stage import from_levels, levels
from jaxdiff.sampling.table import Table, from_rows, symbols

EVEN = [np.array(w) for w in ([1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])]


def lms(schedule: Schedule, times: Grid, order: int = 4) -> Table:
    """Returns the coefficients of the linear multistep method of order 1 to 4 in the noise level.

    Fewer steps lower the order.

    Raises:
      ValueError: if the order is not in 1 to 4.

    Source: Crowson, k-diffusion.
    """
    s, steps = levels(schedule, times), len(times) - 1
    if not 1 <= order <= 4:
        raise ValueError(f"order = {order}: expected 1 to 4")
    order = min(order, steps)
    (z, *past), D, _ = symbols(order)
    rows = []
    for n in range(steps):
        k = min(order, n + 1)
        eps = [(z - D) / s[n], *past]
        w = weights(s[n - k + 1 : n + 1][::-1] - s[n], s[n + 1] - s[n], 0.0)
        rows.append([z + w @ np.array(eps[:k]), *eps[: order - 1]])
    return from_levels(schedule, s, rows)


def moved(
    schedule: Schedule, x: np.ndarray, y: np.ndarray, t: float, to: float, predicts: Literal["eps", "v"]
) -> np.ndarray:
    """Returns DDIM's step from x with an average y of outputs: eps, or v, which is turned into eps at x and t."""
    eps = y if predicts == "eps" else schedule.alpha(t) * y + schedule.sigma(t) * x
    return transfer(schedule, x, eps, t, to)


def output_at(schedule: Schedule, x: np.ndarray, D: np.ndarray, t: float, predicts: Literal["eps", "v"]) -> np.ndarray:
    """Returns the eps, or v, of a call at time t."""
    return noise_at(schedule, x, D, t) if predicts == "eps" else (schedule.alpha(t) * x - D) / schedule.sigma(t)


def noise_at(schedule: Schedule, x: np.ndarray, D: np.ndarray, t: float) -> np.ndarray:
    """Returns the eps of a call at time t."""
    return (x - schedule.alpha(t) * D) / schedule.sigma(t)


def transfer(schedule: Schedule, x: np.ndarray, eps: np.ndarray, t: float, to: float) -> np.ndarray:
    """Returns DDIM's step from time t to time `to` with any eps."""
    alpha, sigma = schedule.alpha, schedule.sigma
    return alpha(to) / alpha(t) * (x - sigma(t) * eps) + sigma(to) * eps


def ipndm(schedule: Schedule, times: Grid) -> Table:
    """Returns the coefficients of iPNDM: order one, two, three, then four.

    Where the walk begins at pure noise eps is the noise itself, which says nothing of x0: as in the released code, the
    first step then takes x0 = 0. Source: Zhang & Chen 2023, arXiv 2204.13902, equation 22.
    """
    times = check(times)
    (x, *past), D, _ = symbols(4)
    rows = []
    for n, (t, to) in enumerate(pairwise(times)):
        eps = [noise_at(schedule, x, D, t), *past]
        w = EVEN[min(n, 3)]
        blind = schedule.alpha(t) < 1e-8
        average = w @ np.array(eps[: len(w)])
        after = schedule.sigma(to) * average if blind else transfer(schedule, x, average, t, to)
        rows.append([after, *eps[:3]])
    return from_rows(times[:-1], rows)


def plms(schedule: Schedule, times: Grid, gap: float | None = None, predicts: Literal["eps", "v"] = "eps") -> Table:
    """Returns the coefficients of PLMS, which makes one call more than there are steps; a single step is DDIM's.

    `gap` is how far each step goes (`ddim.lands`); None: to the next time. The average is of eps, or, as the released
    code has it for such networks, of v. Source: Rombach et al. 2022, released code.
    """
    times = check(times)
    ends = lands(times, gap)
    (x, start, *past), D, _ = symbols(5)
    output = lambda t: output_at(schedule, x, D, t, predicts)
    move = lambda base, y, t, to: moved(schedule, base, y, t, to, predicts)
    first = output(times[0])
    rows = [[move(x, first, times[0], ends[0]), x, first, *past[:2]]]
    if len(times) == 2:
        return from_rows(times[:1], rows)
    since = times[0] if gap is None else times[1] + gap
    rows.append([move(start, (output(times[1]) + past[0]) / 2, since, times[1]), start, *past])
    for n, (t, to) in enumerate(zip(times[1:-1], ends[1:], strict=True)):
        outputs = [output(t), *past]
        w = EVEN[min(n + 1, 3)]
        rows.append([move(x, w @ np.array(outputs[: len(w)]), t, to), start, *outputs[:3]])
    return from_rows([times[0], times[1], *times[1:-1]], rows)


def pndm(schedule: Schedule, times: Grid, gap: float | None = None, predicts: Literal["eps", "v"] = "eps") -> Table:
    """Returns the coefficients of PNDM: three steps of Runge-Kutta with four calls each, then order four.

    Args:
      schedule: the process.
      times: strictly decreasing, in [0, 1].
      gap: how far the later steps go (`ddim.lands`), half of which, in whole trained steps, is where the first ones
        make their middle calls; None: to the next time.
      predicts: whether eps or v is averaged.

    Raises:
      ValueError: if there are fewer than four steps.

    Source: Liu et al. 2022, arXiv 2202.09778, algorithm 2.
    """
    times = check(times)
    if len(times) < 5:
        raise ValueError(f"pndm takes at least 4 steps, got {len(times) - 1}: use plms for fewer")
    (x, start, total, *past), D, _ = symbols(6)
    output = lambda t: output_at(schedule, x, D, t, predicts)
    move = lambda base, y, t, to: moved(schedule, base, y, t, to, predicts)
    t, rows, trained = [], [], trained_steps(schedule)
    for a, b in pairwise(times[:4]):
        half = (a - b) / 2 if gap is None else np.floor(gap * trained / 2 + 1e-6) / trained
        first, middle, last = output(a), output(b + half), output(b)
        t += [a, b + half, b + half, b]
        rows += [
            [move(x, first, a, a - half), x, first / 6, first, *past[:2]],
            [move(start, middle, a, b + half), start, total + middle / 3, *past],
            [move(start, middle, a, b), start, total + middle / 3, *past],
            [move(start, total + last / 6, a, b), start, total, *past],
        ]
    for a, b in zip(times[3:-1], lands(times, gap)[3:], strict=True):
        outputs = [output(a), *past]
        t += [a]
        rows.append([move(x, EVEN[3] @ np.array(outputs), a, b), start, total, *outputs[:3]])
    return from_rows(t, rows)
