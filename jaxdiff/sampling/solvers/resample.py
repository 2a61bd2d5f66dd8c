"""Tables that go back up: RePaint.

RePaint (Lugmayr et al. 2022, arXiv 2201.09865) fills a hole by ancestral sampling with the known pixels put in at each
step, and harmonises both by going back: after `jump` steps it noises the picture up again by as many and walks down
once more, `resamples` times in all. Going from time s up to t > s is

    x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) noise,

no network call: it joins the row of the call before, whose independent noise adds to it. The known pixels enter through
the denoiser (`guidance.inpaint`), whose x0 estimate is exact there; the posterior step then keeps their noise right.
"""

from itertools import pairwise

import numpy as np

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check
from jaxdiff.sampling.solvers.ddim import ddpm
from jaxdiff.sampling.table import Table


def path(steps: int, jump: int, resamples: int) -> list[int]:
    """Returns the grid indices that RePaint visits: every `jump` steps it goes back, `resamples` - 1 times."""
    visited = [0]
    while visited[-1] < steps:
        stretch = list(range(visited[-1] + 1, min(visited[-1] + jump, steps) + 1))
        resampled = len(stretch) == jump and stretch[-1] < steps
        for n in range(resamples if resampled else 1):
            visited += [visited[-1] - jump] * (n > 0) + stretch
    return visited


def repaint(schedule: Schedule, times: Grid, jump: int = 10, resamples: int = 10) -> Table:
    """Returns the coefficients of RePaint's walk.

    Jumps start where a whole one fits, and the last stretch is walked once.

    Args:
      schedule: the process.
      times: strictly decreasing, in [0, 1].
      jump: how many steps it goes back.
      resamples: how often each stretch is walked; 1 is DDPM.

    Raises:
      ValueError: if either is below 1.

    Source: Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1 and appendix B.
    """
    if jump < 1 or resamples < 1:
        raise ValueError(f"jump = {jump} and resamples = {resamples}: both must be at least 1")
    times = check(times)
    down = ddpm(schedule, times)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    order, A, b, c = [], [], [], []
    visited = path(len(times) - 1, jump, resamples)
    for before, after in pairwise(visited):
        if after > before:
            order.append(before)
            A.append(down.A[before])
            b.append(down.b[before])
            c.append(down.c[before])
        else:
            ratio = alpha[after] / alpha[before]
            fresh = sigma[after] ** 2 - (ratio * sigma[before]) ** 2
            A[-1], b[-1], c[-1] = ratio * A[-1], ratio * b[-1], np.sqrt((ratio * c[-1]) ** 2 + fresh)
    return Table(times[order], np.array(A), np.array(b), np.array(c))
