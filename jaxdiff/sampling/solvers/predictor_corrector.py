"""UniPC and SA-Solver: an exponential multistep predictor whose result is corrected by the next network call.

The predictor goes from the corrected point x_n to x~_{n+1} with the estimates at u_n, u_{n-1}, ... (`exponential`). The
network is evaluated at x~_{n+1}, once; with that estimate as one more node the step from x_n is done again: that gives
the corrected x_{n+1}, one order better for no further call. The last point is not corrected. In the paper's notation
the weights solve a Vandermonde system with right-hand side phi_k(h) k! / B(h); its solution is the integral of the
Lagrange basis, whatever B is, except with two nodes, where the papers fix the weight at 1/2: then B(h) = h gives the
`flat` integral of u, B(h) = e^h - 1 the `midpoint` one.

The corrector of an SDE step reuses the noise of its predictor, which therefore has a slot of its own.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check
from jaxdiff.sampling.solvers.exponential import Slope, exact_step, nodes, scales, weights
from jaxdiff.sampling.table import Table, from_rows, symbols


def predictor_corrector(
    schedule: Schedule,
    times: Grid,
    order: int,
    corrector: int,
    slope: Slope,
    tau: Callable[[float], float] = lambda t: 0.0,
    lower_final: bool = True,
    predicts: str = "x0",
    skip: Sequence[int] = (),
) -> Table:
    """Returns a table of predictors of `order` estimates, and correctors of `corrector` (0: none), newest included.

    The first steps use what there is; with `lower_final` the order falls to one again towards the end. A step from
    alpha = 0, which is infinitely long, is not corrected; nor are the steps whose numbers are in `skip`.
    """
    times, steps = check(times), len(times) - 1
    if order < 1:
        raise ValueError(f"order = {order}: expected at least 1")
    order, corrector = min(order, steps), min(corrector, steps + 1)
    g = scales(schedule, times)
    (x, base, z, *past), D, noise = symbols(3 + max(order, corrector) - 1)
    rows = []
    for n in range(steps):
        known = [D if predicts == "x0" else (x - g.alpha[n] * D) / g.sigma[n], *past]
        corrected = x
        if n > 0 and corrector > 0 and n - 1 not in skip and np.isfinite(g.u[n - 1]):
            k = min(corrector, n + 1, steps - n + 2 if lower_final else corrector)
            step = exact_step(g, n - 1, n, predicts, tau(times[n - 1]))
            w = weights(g.u[n - k + 1 : n + 1][::-1] - g.u[n - 1], step.h, step.rate, slope)
            corrected = step.carry * base + step.gain * (w @ np.array(known[:k])) + z
        if g.sigma[n + 1] == 0:
            after, spread = g.alpha[n + 1] * D, 0.0
        else:
            k = min(order, n + 1, steps - n if lower_final else order)
            step = exact_step(g, n, n + 1, predicts, tau(times[n]))
            w = weights(nodes(g, n, k), step.h, step.rate, slope)
            spread = step.spread
            after = step.carry * corrected + step.gain * (w @ np.array(known[:k])) + spread * noise
        rows.append([after, corrected, spread * noise, *known[: len(past)]])
    return from_rows(times[:-1], rows)


def unipc(
    schedule: Schedule,
    times: Grid,
    order: int = 2,
    variant: Literal["bh1", "bh2"] = "bh2",
    corrector: bool = True,
    lower_final: bool = True,
    predicts: Literal["x0", "eps"] = "x0",
    skip: Sequence[int] = (),
) -> Table:
    """Returns the coefficients of UniPC of order 1, 2 or 3 (with the corrector one more).

    Args:
      schedule: the process.
      times: strictly decreasing, in [0, 1].
      order: order of the predictor.
      variant: which B(h).
      corrector: whether steps are corrected.
      lower_final: steadies few steps, and costs the high order, which is of interest for many.
      predicts: whether D ("x0") or eps is interpolated.
      skip: the numbers of steps that are not corrected.

    Source: Zhao et al. 2023, arXiv 2302.04867, algorithms 5 to 8.
    """
    slope: Slope = {"bh1": "flat", "bh2": "midpoint"}[variant]  # type: ignore[assignment]
    return predictor_corrector(
        schedule,
        times,
        order,
        order + 1 if corrector else 0,
        slope,
        lower_final=lower_final,
        predicts=predicts,
        skip=skip,
    )


def sa_solver(
    schedule: Schedule,
    times: Grid,
    order: int = 2,
    corrector: int = 2,
    tau: float = 1.0,
    interval: tuple[float, float] = (0.2, 0.8),
    lower_final: bool = True,
) -> Table:
    """Returns the coefficients of SA-Solver: stochastic Adams with noise `tau` at times inside `interval`.

    With `lower_final` the orders fall to one towards the end.

    Source: Xue et al. 2023, arXiv 2309.05019, algorithm 1.
    """
    noisy = lambda t: tau if interval[0] <= t <= interval[1] else 0.0
    return predictor_corrector(schedule, times, order, corrector, "flat", noisy, lower_final)
