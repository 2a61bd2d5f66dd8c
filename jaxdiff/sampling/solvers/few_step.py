"""Samplers of distilled models: consistency, latent consistency (LCM) and trajectory consistency (TCD).

A consistency model maps a point of the probability-flow ODE to its end, so D is a sample already. A few steps improve
it: noise D again to a lower time, and map again. LCM mixes the network's output with its input so that D(x, 0) = x,

    D~ = c_out D + c_skip x,   c_skip = 0.25 / (T^2 + 0.25),   c_out = T / sqrt(T^2 + 0.25),   T = 10 timestep.

TCD's model jumps to any time s <= t; its gamma (here eta) splits a step to t' into a deterministic jump to
s = (1 - eta) t' in trained steps and noise from s up to t': x_t' = (alpha_t' / alpha_s) x_s + sqrt(sigma_t'^2 -
(alpha_t' / alpha_s)^2 sigma_s^2) noise.
"""

from itertools import pairwise

import numpy as np

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check, trained_steps
from jaxdiff.sampling.solvers.ddim import check_eta
from jaxdiff.sampling.table import Table, from_rows, symbols


def consistency(schedule: Schedule, times: Grid, sigma_min: float = 0.0) -> Table:
    """Returns the coefficients of multistep consistency sampling.

    x = alpha D + sqrt(sigma^2 - alpha^2 sigma_min^2) noise.

    `sigma_min` is the level to which the model maps, 0.002 for the released models.

    Source: Song et al. 2023, arXiv 2303.01469, algorithm 1.
    """
    times = check(times)
    (_,), D, noise = symbols(1)
    fresh = lambda t: np.sqrt(max(schedule.sigma(t) ** 2 - (schedule.alpha(t) * sigma_min) ** 2, 0))
    return from_rows(times[:-1], [[schedule.alpha(t) * D + fresh(t) * noise] for t in times[1:]])


def lcm(schedule: Schedule, times: Grid, scaling: float = 10.0, sigma_data: float = 0.5) -> Table:
    """Returns the coefficients of latent consistency sampling.

    Source: Luo et al. 2023, arXiv 2310.04378, algorithm 3.
    """
    times = check(times)
    (x,), D, noise = symbols(1)
    rows = []
    for t, to in pairwise(times):
        T = scaling * schedule.timestep(t)
        mapped = (T * np.sqrt(T**2 + sigma_data**2) * D + sigma_data**2 * x) / (T**2 + sigma_data**2)
        rows.append([schedule.alpha(to) * mapped + schedule.sigma(to) * noise])
    return from_rows(times[:-1], rows)


def tcd(schedule: Schedule, times: Grid, eta: float = 0.3) -> Table:
    """Returns the coefficients of trajectory consistency sampling; `eta` is the paper's gamma.

    Source: Zheng et al. 2024, arXiv 2402.19159, algorithm 4.
    """
    check_eta(eta)
    times, N = check(times), trained_steps(schedule)
    alpha, sigma = schedule.alpha, schedule.sigma
    (x,), D, noise = symbols(1)
    rows = []
    for t, to in pairwise(times):
        # a whole trained step, as the models are distilled on; t' = 0 has no step below it
        s = max(np.floor((1 - eta) * (N * to - 1) + 1e-6) + 1, 0) / N
        jump = alpha(s) * D + sigma(s) * (x - alpha(t) * D) / sigma(t)
        ratio = alpha(to) / alpha(s)
        rows.append([ratio * jump + np.sqrt(max(sigma(to) ** 2 - (ratio * sigma(s)) ** 2, 0)) * noise])
    return from_rows(times[:-1], rows)
