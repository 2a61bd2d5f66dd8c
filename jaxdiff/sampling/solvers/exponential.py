"""Exponential integrators: DPM-Solver, DPM-Solver++, their SDE forms, and DEIS, as multistep tables.

With u = log(alpha / sigma) for time and h the step in it, the probability-flow ODE and the family of SDEs with the same
marginals (tau = 0 the ODE, tau = 1 the usual SDE) integrate exactly in x as long as D, or eps, is known on the way:

    x_t = (sigma_t / sigma_s) e^{-tau^2 h} x_s + (1 + tau^2) alpha_t int_0^h e^{-(1 + tau^2)(h - u)} D(u) du
          + sigma_t sqrt(1 - e^{-2 tau^2 h}) noise                                                             (x0)
    x_t = (alpha_t / alpha_s) x_s - (1 + tau^2) sigma_t int_0^h e^{h - u} eps(u) du
          + tau sigma_t sqrt(e^{2h} - 1) noise                                                                 (eps)

(DPM-Solver, arXiv 2206.00927, proposition 3.1; DPM-Solver++, 2211.01095, proposition 4.1; SA-Solver, 2309.05019,
proposition 4.2). A solver replaces D(u) by the polynomial through the estimates it has; `weights` integrates that
polynomial's basis against the exponential. With nodes only at one end this is Adams-Bashforth with an exponential
weight. Released solvers of second order simplify the integral of u, M1 = int_0^h e^{-r(h - u)} u du:

    exact       M1                              "heun" of the released code, DEIS, every order above two
    midpoint    M0 h / 2, M0 = int e^{-r(h-u)}  DPM-Solver's default, UniPC's B2
    flat        h^2 / 2                         UniPC's B1, SA-Solver

all of second order. A step to clean data (sigma_t = 0, h infinite) is always x = alpha D.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check
from jaxdiff.sampling.table import Table, from_rows, symbols

Slope = Literal["exact", "midpoint", "flat"]
Expression = np.ndarray
QUADRATURE = np.polynomial.legendre.leggauss(40)


class Scales(NamedTuple):
    """alpha, sigma and u = log(alpha / sigma) at the times of a grid."""

    alpha: np.ndarray
    sigma: np.ndarray
    u: np.ndarray


def scales(schedule: Schedule, times: Grid) -> Scales:
    """What every step's coefficients are made of."""
    return Scales(schedule.alpha(times), schedule.sigma(times), schedule.log_snr(times) / 2)


def moment(k: int, h: float, rate: float) -> float:
    """int_0^h e^{-rate (h - u)} u^k du / k!, by quadrature for k > 0: the closed forms cancel for small h."""
    if k == 0:
        return float(-np.expm1(-rate * h) / rate) if rate else h
    points = h / 2 * (QUADRATURE[0] + 1)
    return float(h / 2 * QUADRATURE[1] @ (np.exp(-rate * (h - points)) * points**k)) / max(1, k)


def weights(nodes: np.ndarray, h: float, rate: float, slope: Slope = "exact") -> np.ndarray:
    """int_0^h e^{-rate (h - u)} l_i(u) du for the Lagrange basis l_i on `nodes`, given from the step's start.

    For two nodes, one of them 0, `slope` says which integral of u is taken. A node at infinity (alpha = 0, where a flow
    starts) has no weight.
    """
    if not np.all(np.isfinite(nodes)):
        w = np.zeros(len(nodes))
        w[np.isfinite(nodes)] = weights(nodes[np.isfinite(nodes)], h, rate, slope)
        return w
    if len(nodes) == 1:
        return np.array([moment(0, h, rate)])
    if len(nodes) == 2 and slope != "exact":
        other = int(np.argmax(np.abs(nodes)))
        m0 = moment(0, h, rate)
        share = (m0 * h / 2 if slope == "midpoint" else h**2 / 2) / nodes[other]
        return np.array([share, m0 - share] if other == 0 else [m0 - share, share])
    points = h / 2 * (QUADRATURE[0] + 1)
    kernel = h / 2 * QUADRATURE[1] * np.exp(-rate * (h - points))
    basis = [np.prod([(points - b) / (a - b) for b in nodes if b != a], axis=0) * kernel for a in nodes]
    return np.sum(basis, axis=-1)


class Step(NamedTuple):
    """One exact step, x_t = carry x_s + gain int e^{-rate (h - u)} m(u) du + spread noise."""

    carry: float
    gain: float
    rate: float
    spread: float
    h: float


def exact_step(g: Scales, n: int, m: int, predicts: str = "x0", tau: float = 0.0) -> Step:
    """The coefficients of the step from grid point n to grid point m, in D or in eps."""
    h, square = g.u[m] - g.u[n], tau**2
    if predicts == "x0":
        loss = square * h if tau else 0.0  # h is infinite from alpha = 0
        spread = g.sigma[m] * np.sqrt(-np.expm1(-2 * loss))
        carry = g.sigma[m] / g.sigma[n] * np.exp(-loss)
        return Step(carry, (1 + square) * g.alpha[m], 1 + square, spread, h)
    spread = tau * g.sigma[m] * np.sqrt(np.expm1(2 * h))
    return Step(g.alpha[m] / g.alpha[n], -(1 + square) * g.sigma[m], -1.0, spread, h)


def nodes(g: Scales, n: int, k: int) -> np.ndarray:
    """Where the last k estimates stand at grid point n, relative to it, newest first."""
    return np.append(0.0, g.u[n - k + 1 : n][::-1] - g.u[n])


def multistep(
    schedule: Schedule,
    times: Grid,
    order: int,
    combine: Callable[[Step, np.ndarray, list[Expression]], Expression],
    predicts: str = "x0",
    tau: float = 0.0,
    lower_final: bool | None = None,
    euler_final: bool = False,
) -> Table:
    """A table of steps that reuse the last `order` estimates, or as many as there are.

    Args:
      schedule: the process.
      times: strictly decreasing, in [0, 1].
      order: at most how many estimates a step uses; the first step has one, the second two.
      combine: (step, nodes, estimates, newest first) -> the integral of the estimates.
      predicts: whether D ("x0") or eps is interpolated.
      tau: the noise of the process, 0 for the ODE.
      lower_final: whether the order falls to one at the end, which steadies few steps; by default below 15 steps.
      euler_final: whether the last step is of order one in any case.
    """
    times, steps = check(times), len(times) - 1
    if order < 1:
        raise ValueError(f"order = {order}: expected at least 1")
    order = min(order, steps)
    lower_final = steps < 15 if lower_final is None else lower_final
    g = scales(schedule, times)
    (x, *past), D, noise = symbols(order)
    rows = []
    for n in range(steps):
        newest = D if predicts == "x0" else (x - g.alpha[n] * D) / g.sigma[n]
        if g.sigma[n + 1] == 0:
            after = g.alpha[n + 1] * D
        else:
            k = min(order, n + 1, steps - n if lower_final else order, 1 if euler_final and n == steps - 1 else order)
            with np.errstate(divide="ignore", invalid="ignore"):  # in eps, from alpha = 0: `from_rows` refuses it
                step = exact_step(g, n, n + 1, predicts, tau)
                integral = combine(step, nodes(g, n, k), [newest, *past][:k])
                after = step.carry * x + step.gain * integral + step.spread * noise
        rows.append([after, *[newest, *past][: order - 1]])
    return from_rows(times[:-1], rows)


def interpolate(slope: Slope) -> Callable[[Step, np.ndarray, list[Expression]], Expression]:
    """The integral of the interpolating polynomial."""
    return lambda step, nodes, m: weights(nodes, step.h, step.rate, slope) @ np.array(m)


def dpm_solver(
    schedule: Schedule,
    times: Grid,
    order: int = 2,
    tau: float = 0.0,
    slope: Slope = "midpoint",
    lower_final: bool | None = None,
    euler_final: bool = False,
) -> Table:
    """Coefficients of multistep DPM-Solver of order 1, 2 or 3: eps is interpolated; tau = 1 is its SDE form.

    Source: Lu et al. 2022, arXiv 2206.00927, and its released multistep code.
    """
    return multistep(schedule, times, order, _released(slope, order), "eps", tau, lower_final, euler_final)


def deis(schedule: Schedule, times: Grid, order: int = 3, lower_final: bool | None = None) -> Table:
    """Coefficients of DEIS in log rho, of any order: eps interpolated exactly in log(sigma / alpha).

    Source: Zhang & Chen 2023, arXiv 2204.13902, equation 15, with rho = sigma / alpha.
    """
    return multistep(schedule, times, order, interpolate("exact"), "eps", lower_final=lower_final)


def dpmpp_2m(
    schedule: Schedule,
    times: Grid,
    tau: float = 0.0,
    slope: Slope = "midpoint",
    order: int = 2,
    lower_final: bool | None = None,
    euler_final: bool = False,
) -> Table:
    """Coefficients of the second-order multistep DPM-Solver++.

    With u = log(alpha / sigma), h_i = u_{i+1} - u_i and r = h_{i-1} / h_i:

        x_{i+1} = sigma_{i+1} / sigma_i x_i - alpha_{i+1} expm1(-h_i) ((1 + 1/2r) D_i - 1/2r D_{i-1})

    The first step, and a last step that ends at sigma = 0, are first order; so is the last of fewer than 15.

    Args:
      schedule: gives alpha and sigma at `times`.
      times: strictly decreasing, in [0, 1].
      tau: 0 for the ODE, 1 for the SDE (`dpmpp_2m_sde`).
      slope: "exact" is the "heun" type of the released code.
      order: 2, or 1, which is DDIM where tau is 0.
      lower_final: see `multistep`.
      euler_final: see `multistep`.

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 2.
    """
    return multistep(schedule, times, min(order, 2), interpolate(slope), "x0", tau, lower_final, euler_final)


def dpmpp_3m(
    schedule: Schedule,
    times: Grid,
    tau: float = 0.0,
    released: bool = True,
    slope: Slope = "midpoint",
    lower_final: bool | None = None,
    euler_final: bool = False,
) -> Table:
    """Coefficients of the third-order multistep DPM-Solver++.

    The released code takes the divided difference for the second derivative, which is half of it. That makes the solver
    one of second order with a small constant; `released=False` has the whole term, and third order.

    Source: Lu et al. 2022, arXiv 2211.01095, its released code; Crowson, k-diffusion, for tau = 1.
    """
    combine = _released(slope, 3) if released else interpolate("exact")
    return multistep(schedule, times, 3, combine, "x0", tau, lower_final, euler_final)


def dpmpp_2m_sde(
    schedule: Schedule,
    times: Grid,
    tau: float = 1.0,
    slope: Slope = "midpoint",
    order: int = 2,
    lower_final: bool | None = None,
    euler_final: bool = False,
) -> Table:
    """Second-order multistep SDE-DPM-Solver++. Source: Lu et al. 2022, arXiv 2211.01095, equation 19."""
    return dpmpp_2m(schedule, times, tau, slope, order, lower_final, euler_final)


def dpmpp_3m_sde(
    schedule: Schedule,
    times: Grid,
    tau: float = 1.0,
    slope: Slope = "midpoint",
    lower_final: bool | None = None,
    euler_final: bool = False,
) -> Table:
    """Third-order multistep SDE-DPM-Solver++. Source: Crowson, k-diffusion."""
    return dpmpp_3m(schedule, times, tau, True, slope, lower_final, euler_final)


def _released(slope: Slope, order: int) -> Callable[[Step, np.ndarray, list[Expression]], Expression]:
    """Two estimates: `slope`. Three: a Taylor series whose second derivative is the divided difference."""

    def taylor(step: Step, nodes: np.ndarray, m: list[Expression]) -> Expression:
        if len(m) < 3:
            return interpolate(slope)(step, nodes, m)
        first, second = (m[1] - m[0]) / (nodes[1] - nodes[0]), (m[2] - m[1]) / (nodes[2] - nodes[1])
        bend = (second - first) / (nodes[2] - nodes[0])
        tangent = first - nodes[1] * bend
        return sum(moment(k, step.h, step.rate) * d for k, d in enumerate((m[0], tangent, bend)))

    return taylor if order == 3 else interpolate(slope)
