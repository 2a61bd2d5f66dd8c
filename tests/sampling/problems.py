"""The exact problems that solvers are measured on, and the list of all deterministic ones with their orders."""

import numpy as np
from scipy.integrate import solve_ivp

from jaxdiff import sampling as sp
from jaxdiff.diffusion import exact, schedule

VP = schedule.vp()
MIXTURE = exact.mixture(
    np.array([0.5, 0.3, 0.2]),
    np.array([[1.0, -1.0], [-1.5, 0.5], [0.5, 1.5]]),
    np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.4]], [[0.25, -0.1], [-0.1, 0.25]]]),
)
FAR = exact.mixture(
    np.array([0.5, 0.3, 0.2]),
    np.array([[2.0, 0.0], [-1.5, 1.5], [-1.0, -2.0]]),
    np.array([[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0.0], [0.0, 0.2]], [[0.15, -0.05], [-0.05, 0.15]]]),
)


def flow(data, s, first, last, x):
    """The probability-flow ODE in log-SNR by an adaptive solver of order eight."""

    def slope(lam, y):
        t, h = s.time(lam), 1e-5
        alpha, sigma = s.alpha(t), s.sigma(t)
        d_alpha, d_sigma = ((f(s.time(lam + h)) - f(s.time(lam - h))) / (2 * h) for f in (s.alpha, s.sigma))
        y = y.reshape(x.shape)
        D = data.x0(y, alpha, sigma)
        return (d_alpha * D + d_sigma * (y - alpha * D) / sigma).ravel()

    ends = (s.log_snr(np.float64(first)), s.log_snr(np.float64(last)))
    return solve_ivp(slope, ends, x.ravel(), method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1].reshape(x.shape)


def even(s, steps, first, last):
    """The grid uniform in log-SNR between two times, both included."""
    lam = np.linspace(s.log_snr(np.float64(first)), s.log_snr(np.float64(last)), steps + 1)
    return np.concatenate([[first], s.time(lam[1:-1]), [last]])


def deviation(table, s, variance):
    """The exact standard deviation of a table's results for data N(0, variance), from its coefficients alone.

    The exact denoiser of such data is linear, so the covariance of the slots follows call by call.
    """
    alpha = s.alpha(table.t)
    total = alpha**2 * variance + s.sigma(table.t) ** 2
    covariance = np.zeros((table.slots, table.slots))
    covariance[0, 0] = alpha[0] ** 2 + s.sigma(table.t[0]) ** 2
    for n in range(table.calls):
        M = table.A[n].copy()
        M[:, 0] += table.b[n] * alpha[n] * variance / total[n]
        covariance = M @ covariance @ M.T + np.outer(table.c[n], table.c[n])
    return covariance[0, 0] ** 0.5


# name -> (make, order)
DETERMINISTIC = {
    "ddim": (sp.ddim, 1),
    "euler": (sp.euler, 1),
    "heun": (sp.heun, 2),
    "edm": (sp.edm, 2),
    "kdpm2": (sp.kdpm2, 2),
    "dpmpp_2s_ancestral, eta 0": (lambda s, t: sp.dpmpp_2s_ancestral(s, t, 0.0), 2),
    "dpmpp_sde, eta 0": (lambda s, t: sp.dpmpp_sde(s, t, 0.0), 2),
    **{f"lms {k}": (lambda s, t, k=k: sp.lms(s, t, k), k) for k in (1, 2, 3, 4)},
    "plms": (sp.plms, 2),
    "pndm": (sp.pndm, 2),
    "ipndm": (sp.ipndm, 2),
    **{f"dpm_solver {k}": (lambda s, t, k=k: sp.dpm_solver(s, t, k), min(k, 2)) for k in (1, 2, 3)},
    **{f"dpm_solver_single {k}": (lambda s, t, k=k: sp.dpm_solver_single(s, t, k), k) for k in (1, 2, 3)},
    "dpm_solver_single 3 in x0": (lambda s, t: sp.dpm_solver_single(s, t, 3, "x0"), 3),
    "dpmpp_2s": (sp.dpmpp_2s, 2),
    "dpmpp_2m": (sp.dpmpp_2m, 2),
    "dpmpp_2m exact": (lambda s, t: sp.dpmpp_2m(s, t, slope="exact"), 2),
    "dpmpp_3m": (sp.dpmpp_3m, 2),
    "dpmpp_3m whole": (lambda s, t: sp.dpmpp_3m(s, t, released=False), 3),
    **{f"deis {k}": (lambda s, t, k=k: sp.deis(s, t, k), k) for k in (1, 2, 3, 4)},
    **{
        f"unipc {k} {v}{' corrected' if c else ''}": (lambda s, t, k=k, v=v, c=c: sp.unipc(s, t, k, v, c, False), k + c)
        for k in (1, 2, 3)
        for v in ("bh1", "bh2")
        for c in (False, True)
    },
}

STOCHASTIC = {
    "ddpm": sp.ddpm,
    "ddpm large": lambda s, t: sp.ddpm(s, t, "large"),
    "ddim, eta 0.5": lambda s, t: sp.ddim(s, t, 0.5),
    "euler_ancestral": sp.euler_ancestral,
    "edm, churn": lambda s, t: sp.edm(s, t, churn=30.0),
    "kdpm2_ancestral": sp.kdpm2_ancestral,
    "dpmpp_2s_ancestral": sp.dpmpp_2s_ancestral,
    "dpmpp_sde": sp.dpmpp_sde,
    "dpmpp_2m_sde": sp.dpmpp_2m_sde,
    "dpmpp_3m_sde": sp.dpmpp_3m_sde,
    "dpm_solver, sde": lambda s, t: sp.dpm_solver(s, t, 2, 1.0),
    "dpmpp_2s, sde": lambda s, t: sp.dpmpp_2s(s, t, 1.0),
    "sa_solver": sp.sa_solver,
    "restart": sp.restart,
    "repaint": lambda s, t: sp.repaint(s, t, 10, 2),
}
