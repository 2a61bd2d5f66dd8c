"""DDPM and DDIM: the ancestral samplers, on any subset of steps.

From time t to a cleaner time s, with alpha = alpha_t and so on, the forward process from s to t keeps a fraction
alpha_t / alpha_s of the signal and adds noise of variance beta = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2. Relative
to sigma_t^2 that is -expm1(lambda_t - lambda_s), without cancellation. Bayes' rule for known x0 gives the posterior

    x_s ~ N(alpha_s x0 + rho (x_t - alpha_t x0), var),   rho = alpha_t sigma_s^2 / (alpha_s sigma_t^2)
    var = sigma_s^2 (-expm1(lambda_t - lambda_s))

and DDPM puts the network's estimate D for x0 in it ("large": with beta for var). DDIM keeps the same marginals with a
freely chosen variance s^2 = eta^2 var: the rest of the noise at s points where the estimate of eps does,

    x_s = alpha_s D + sqrt(sigma_s^2 - s^2) eps + s noise,   eps = (x_t - alpha_t D) / sigma_t.

eta = 1 is DDPM with the small variance, eta = 0 an ODE solver of first order. Its inversion is the same formula with
the grid reversed. Where D is kept in bounds, eps is that of the bounded D, or (`keep_eps`) the network's own.

The released DDIM and PNDM step from t to t - gap, N // steps trained steps further down, even where their next call is
elsewhere (`lands`).
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check, trained_steps
from jaxdiff.sampling.table import Table, from_rows, symbols, unbounded


def check_eta(eta: float) -> None:
    """Refuses an eta outside [0, 1]."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}: expected a number in [0, 1]; 0 is deterministic, 1 has DDPM's noise")


def lands(times: Grid, gap: float | None) -> Float[np.ndarray, " n"]:
    """Returns where each step of a grid ends: at the next time, or by `gap` below; below 0 at the grid's end."""
    return times[1:] if gap is None else np.where(times[:-1] - gap > 1e-9, times[:-1] - gap, times[-1])


def ddpm(
    schedule: Schedule,
    times: Grid,
    variance: Literal["small", "large", "learned"] = "small",
    final_noise: bool = False,
) -> Table:
    """Returns the coefficients of ancestral sampling.

    Args:
      schedule: the process.
      times: strictly decreasing, in [0, 1].
      variance: "small" (posterior) or "large" (beta); or "learned", which leaves the scale of the noise to the denoiser
        (`variance.learned_denoiser`) and tells it the logarithms of both as `aux["log_variances"]`.
      final_noise: whether the step to clean data adds noise too, as the released code does from any trained step but
        the first: none of the small variance, all of the large one.

    Source: Ho et al. 2020, arXiv 2006.11239, algorithm 2; Nichol & Dhariwal 2021, arXiv 2102.09672, equation 15.
    """
    times = check(times)
    (x,), D, noise = symbols(1)
    a, s, lam = schedule.alpha(times), schedule.sigma(times), schedule.log_snr(times)
    rows, logs = [], []
    for n in range(len(times) - 1):
        fresh = -np.expm1(lam[n] - lam[n + 1])
        small, large = s[n + 1] ** 2 * fresh, s[n] ** 2 * fresh
        mean = a[n + 1] * D + a[n] * s[n + 1] ** 2 / (a[n + 1] * s[n] ** 2) * (x - a[n] * D)
        noisy = s[n + 1] > 0 or (final_noise and times[n] * trained_steps(schedule) > 1.5)
        rows.append([mean + noisy * {"small": small, "large": large, "learned": 1.0}[variance] ** 0.5 * noise])
        logs.append(np.log([max(small, 1e-20), large]) if noisy else np.zeros(2))
    table = from_rows(times[:-1], rows)
    return dataclasses.replace(table, aux={"log_variances": np.array(logs)}) if variance == "learned" else table


def ddim(schedule: Schedule, times: Grid, eta: float = 0.0, keep_eps: bool = False, gap: float | None = None) -> Table:
    """Returns the coefficients of DDIM.

    Args:
      schedule: the process.
      times: strictly decreasing, in [0, 1].
      eta: from 0 to 1, scales the noise from none to DDPM's.
      keep_eps: whether eps is the network's own where estimates are kept in bounds.
      gap: how far each step goes (`lands`); None: to the next time.

    Source: Song et al. 2021, arXiv 2010.02502, equations 12 and 16.
    """
    check_eta(eta)
    times = check(times)
    (x,), D, noise = symbols(1)
    own = unbounded(1) if keep_eps else D
    rows = []
    for t, to in zip(times[:-1], lands(times, gap), strict=True):
        sigma = schedule.sigma(to)
        std = eta * sigma * np.sqrt(-np.expm1(schedule.log_snr(t) - schedule.log_snr(to)))
        eps = (x - schedule.alpha(t) * own) / schedule.sigma(t)
        rows.append([schedule.alpha(to) * D + np.sqrt(sigma**2 - std**2) * eps + std * noise])
    return from_rows(times[:-1], rows)


def ddim_inverse(schedule: Schedule, times: Grid, gap: float | None = None) -> Table:
    """Returns the coefficients of DDIM backwards, from the grid's last time (data) to its first, noise.

    Each step from t up to s takes eps from a network call at s, where the network knows noise, but at the picture x_t:

        x_s = (alpha_s / alpha_t) (x_t - sigma_t eps) + sigma_s eps.

    `times` is the grid of the way down, and `gap` how far below s each step begins (`lands`). Source: Song et al. 2021,
    arXiv 2010.02502, section 4.3.
    """
    times = check(times)
    (x,), D, _ = symbols(1)
    alpha, sigma = schedule.alpha, schedule.sigma
    rows = []
    for s, t in zip(times[-2::-1], lands(times, gap)[::-1], strict=True):
        eps = (x - alpha(s) * D) / sigma(s)
        rows.append([alpha(s) / alpha(t) * (x - sigma(t) * eps) + sigma(s) * eps])
    return from_rows(times[-2::-1], rows)


def euler(schedule: Schedule, times: Grid) -> Table:
    """Returns the coefficients of Euler's method, in the noise level or along a rectified flow: in x both are DDIM.

    With z = x / alpha, z + (s' - s)(z - D) / s = D + s' eps; with alpha = 1 - sigma, x + (sigma' - sigma)(eps - D) is
    alpha' D + sigma' eps. Source: Karras et al. 2022, arXiv 2206.00364, appendix C.4.
    """
    return ddim(schedule, times)


def euler_ancestral(schedule: Schedule, times: Grid, eta: float = 1.0) -> Table:
    """Returns the coefficients of ancestral Euler: a step below the next level, and noise up to it.

    In x that is DDIM with eta. Source: Crowson, k-diffusion.
    """
    return ddim(schedule, times, eta)
