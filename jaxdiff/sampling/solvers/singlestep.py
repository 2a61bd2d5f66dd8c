"""Singlestep DPM-Solver and DPM-Solver++: Runge-Kutta in u = log(alpha / sigma), with the grid's own points as stages.

A step of order k covers k intervals of the grid. From its first point s it goes to the second by a step of order one,
from s again to the third by order two with the estimates at both, from s to the fourth by order three with all three.
The integrals are those of `exponential`. With h the whole way, r the place of the newest stage in it and D1 the slope
from the first estimate m to the newest one:

    order 2   int = M0 (m + h D1 / 2)          order 3   int = M0 m + M1 D1          M_k = int_0^h e^{-r(h-u)} u^k du

The second is of third order when the newest stage stands at r = 2/3, as it does on a grid uniform in log-SNR
(DPM-Solver, arXiv 2206.00927, algorithms 1 and 2, equation 4.1). The grid is cut into 3, 3, ..., 2, 1 (`orders`).
"""

from typing import Literal

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check
from jaxdiff.sampling.solvers.exponential import exact_step, moment, scales
from jaxdiff.sampling.table import Table, from_rows, symbols


def orders(steps: int, order: int, to_data: bool, lower_final: bool = False) -> list[int]:
    """Returns the order of each interval: 1, 2, ..., order again and again, then lower; to clean data the last is 1."""
    if steps % order == 0 and not to_data and not lower_final:
        return list(range(1, order + 1)) * (steps // order)
    ends = {1: [1] * min(steps, 1), 2: [1, 1] if steps % 2 == 0 else [1], 3: ([1, 2, 1], [1], [1, 2])[steps % 3]}[order]
    full = list(range(1, order + 1)) * ((steps - len(ends)) // order)
    return [*full, *ends[:-1], 1 if to_data else ends[-1]]


def dpm_solver_single(
    schedule: Schedule,
    times: Grid,
    order: int = 2,
    predicts: str = "eps",
    tau: float = 0.0,
    slope: Literal["midpoint", "exact"] = "midpoint",
    lower_final: bool = False,
) -> Table:
    """Returns the coefficients of singlestep DPM-Solver of order 1, 2 or 3, in eps or ("x0") in D.

    `slope` says which integral of u the steps of order two take (`exponential`). With `lower_final` the last steps are
    of lower order even where the grid is whole rounds and ends above clean data.

    Raises:
      ValueError: if the order is not 1, 2 or 3.

    Source: Lu et al. 2022, arXiv 2206.00927, algorithms 1 and 2; 2211.01095, algorithm 1.
    """
    times, steps = check(times), len(times) - 1
    if order not in (1, 2, 3):
        raise ValueError(f"order = {order}: expected an order of 1, 2 or 3")
    g = scales(schedule, times)
    (x, base, first), D, noise = symbols(3)
    rows = []
    for n, k in enumerate(orders(steps, order, bool(g.sigma[-1] == 0), lower_final)):
        newest = D if predicts == "x0" else (x - g.alpha[n] * D) / g.sigma[n]
        if k == 1:
            origin, start, m = n, x, newest
        else:
            start, m = base, first
        if g.sigma[n + 1] == 0:
            rows.append([g.alpha[n + 1] * D, x, D])
            continue
        step = exact_step(g, origin, n + 1, predicts, tau)
        integral = moment(0, step.h, step.rate) * m
        if k > 1:
            flat = k == 2 and slope == "midpoint"
            first_moment = moment(0, step.h, step.rate) * step.h / 2 if flat else moment(1, step.h, step.rate)
            integral = integral + (newest - m) / (g.u[n] - g.u[origin]) * first_moment
        rows.append([step.carry * start + step.gain * integral + step.spread * noise, start, m])
    return from_rows(times[:-1], rows)


def dpmpp_2s(
    schedule: Schedule,
    times: Grid,
    tau: float = 0.0,
    order: int = 2,
    slope: Literal["midpoint", "exact"] = "midpoint",
    lower_final: bool = False,
) -> Table:
    """Returns the coefficients of second-order singlestep DPM-Solver++.

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 1.
    """
    return dpm_solver_single(schedule, times, order, "x0", tau, slope, lower_final)


def dpmpp_2s_sde(
    schedule: Schedule,
    times: Grid,
    tau: float = 1.0,
    order: int = 2,
    slope: Literal["midpoint", "exact"] = "midpoint",
    lower_final: bool = False,
) -> Table:
    """Returns the coefficients of the second-order singlestep SDE-DPM-Solver++.

    Source: Lu et al. 2022, arXiv 2211.01095, its released code.
    """
    return dpmpp_2s(schedule, times, tau, order, slope, lower_final)
