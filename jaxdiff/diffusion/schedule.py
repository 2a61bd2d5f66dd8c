"""Schedules: how much signal and how much noise a picture holds at each time.

A schedule is x_t = alpha(t) x_0 + sigma(t) eps for t in [0, 1], clean at t = 0 and noisiest at t = 1. One number says
how noisy a time is, the log signal-to-noise ratio

    lambda(t) = 2 log(alpha(t) / sigma(t)),

which falls strictly from +inf. Where the process preserves variance (alpha^2 + sigma^2 = 1) it gives both scales:
alpha = sqrt(sigmoid(lambda)), sigma = sqrt(sigmoid(-lambda)), each without cancellation, so float32 is enough.

**Trained steps on a continuous time.** A model trained on N discrete steps with variances beta_i knows only
lambda_i = log abar_i - log(1 - abar_i), abar_i = prod_{j <= i} (1 - beta_j). Step i lies at t = (i + 1) / N, which
leaves t = 0 for clean data and makes the network's time `timestep(t) = N t - 1`. Between two steps lambda is linear in
t (as is log(sigma / alpha), the usual choice for fractional steps). Below the first step sigma / alpha falls linearly
to 0, hence lambda(t) = lambda_0 - 2 log(N t): still strictly monotone, and invertible all the way to clean data. If
alpha is 0 at the last step (zero terminal signal), the last interval is the mirror image: alpha / sigma falls linearly
to 0.

Every method takes float64 NumPy and returns float64, or traced float32 and returns float32: one formula serves both,
through the array's own namespace. Schedules are pytrees of numbers, so they may be closed over by a jitted function or
be its arguments.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from jaxdiff.diffusion.continuous import (
    Times,
    VariancePreserving,
    edm,
    flow,
    namespace,
    resolution_shift,
    shifted_cosine,
    softplus,
    sub_vp,
    ve,
    vp,
)

__all__ = [
    "Discrete",
    "Schedule",
    "Times",
    "cosine",
    "discrete",
    "edm",
    "flow",
    "from_alpha_bar",
    "from_log_snr",
    "linear",
    "namespace",
    "resolution_shift",
    "scaled_linear",
    "shifted_cosine",
    "sigmoid",
    "sigmoid_signal",
    "sub_vp",
    "ve",
    "vp",
    "zero_terminal",
]


@runtime_checkable
class Schedule(Protocol):
    """The protocol of noise schedules, for samplers, losses and denoisers; its five functions are elementwise."""

    @property
    def first(self) -> float:
        """Returns the least noisy time that networks are trained at."""

    def alpha(self, t: Times) -> Times:
        """Returns the scale of the signal."""

    def sigma(self, t: Times) -> Times:
        """Returns the scale of the noise."""

    def log_snr(self, t: Times) -> Times:
        """Returns 2 log(alpha / sigma): falls strictly, +inf at clean data."""

    def time(self, log_snr: Times) -> Times:
        """Returns the inverse of `log_snr`."""

    def timestep(self, t: Times) -> Times:
        """Returns what the network calls time."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Discrete(VariancePreserving):
    """A schedule known at trained steps, as the module docstring continues it; also the way to bring any user table.

    Attributes:
      knots: [N] log-SNR at t = (i + 1) / N, strictly falling; all finite.
      zero_terminal: one more step follows the knots, at which alpha is 0.
    """

    knots: Any
    zero_terminal: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def steps(self) -> int:
        """Returns the number of trained steps."""
        return self.knots.shape[0] + self.zero_terminal

    @property
    def first(self) -> float:
        return 1 / self.steps

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        knots = xp.asarray(self.knots, dtype=t.dtype)
        step = t * self.steps - 1
        # a sum of hats and no index: a compiler may round `step` twice, and then floor(step) differs from itself
        numbers = xp.arange(len(knots), dtype=t.dtype).reshape((1,) * t.ndim + (-1,))
        hats = xp.maximum(1 - xp.abs(xp.clip(step, 0, len(knots) - 1)[..., None] - numbers), 0)
        lam = (hats * knots.reshape(numbers.shape)).sum(-1)
        with np.errstate(divide="ignore"):
            lam = xp.where(step < 0, knots[0] - 2 * xp.log(xp.where(step < 0, t * self.steps, 1)), lam)
            if self.zero_terminal:
                rest = self.steps - 1 - step
                lam = xp.where(rest < 1, knots[-1] + 2 * xp.log(xp.where(rest < 1, xp.maximum(rest, 0), 1)), lam)
        return lam[()]

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        knots = xp.asarray(self.knots, dtype=lam.dtype)
        steps = xp.arange(knots.shape[0], dtype=lam.dtype)
        after = xp.where(lam > knots[0], xp.exp((knots[0] - lam) / 2), 1 + xp.interp(-lam, -knots, steps))
        if self.zero_terminal:
            after = xp.where(lam < knots[-1], self.steps - xp.exp(xp.minimum(lam - knots[-1], 0) / 2), after)
        return (after / self.steps)[()]

    def timestep(self, t: Times) -> Times:
        """Returns N t - 1; within 1e-3 of a trained step it is that step, which float32 times miss by up to 6e-5."""
        xp, t = namespace(t)
        step = t * self.steps - 1
        return xp.where(xp.abs(step - xp.round(step)) < 1e-3, xp.round(step), step)[()]


def from_log_snr(log_snr: Float[np.ndarray, " n"], zero_terminal: bool = False) -> Discrete:
    """Returns a schedule from a table of log-SNR at t = (i + 1) / n.

    With `zero_terminal` a step with alpha = 0 follows it.
    """
    log_snr = np.asarray(log_snr, np.float64)
    if len(log_snr) < 2:
        raise ValueError(f"a schedule needs at least 2 steps with alpha > 0, got {len(log_snr)}")
    falls = np.isfinite(log_snr) & (np.diff(log_snr, prepend=np.inf) < 0)
    if not falls.all():
        bad = int(np.argmin(falls))
        raise ValueError(
            f"log_snr[{bad}] = {log_snr[bad]} is not finite and below the one before it: log-SNR must fall"
        )
    return Discrete(log_snr, zero_terminal)


def discrete(betas: Float[np.ndarray, " n"]) -> Discrete:
    """Returns the schedule of a model trained on n steps with variances `betas`.

    A last beta of 1 is a zero terminal signal.
    """
    betas = np.asarray(betas, np.float64)
    wrong = ~((betas > 0) & (betas <= 1))
    wrong[:-1] |= betas[:-1] == 1
    if betas.ndim != 1 or np.any(wrong):
        bad = int(np.argmax(wrong)) if betas.ndim == 1 else 0
        raise ValueError(f"betas must be one axis of numbers in (0, 1), the last may be 1; betas[{bad}] = {betas[bad]}")
    zero_terminal = bool(betas[-1] == 1)
    log_alpha_bar = np.cumsum(np.log1p(-betas[: len(betas) - zero_terminal]))
    return from_log_snr(log_alpha_bar - np.log(-np.expm1(log_alpha_bar)), zero_terminal)


def linear(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Discrete:
    """Returns the schedule with linear beta_i. Source: Ho et al. 2020, arXiv 2006.11239, section 4."""
    return discrete(np.linspace(start, end, steps))


def scaled_linear(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Discrete:
    """Returns the schedule with linear sqrt(beta_i).

    Source: Rombach et al. 2022, arXiv 2112.10752 (its released models).
    """
    return discrete(np.linspace(start**0.5, end**0.5, steps) ** 2)


def sigmoid(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Discrete:
    """Returns the schedule with beta_i from `start` to `end` along a sigmoid over [-6, 6].

    Source: Xu et al. 2022 (GeoDiff), arXiv 2203.02923, its released code.
    """
    return discrete(start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, steps))))


def from_alpha_bar(alpha_bar: Callable[[np.ndarray], np.ndarray], steps: int = 1000, cap: float = 0.999) -> Discrete:
    """Returns steps with beta_i = min(1 - abar((i + 1) / n) / abar(i / n), cap), for any falling abar on [0, 1]."""
    values = alpha_bar(np.arange(steps + 1) / steps)
    return discrete(np.minimum(1 - values[1:] / values[:-1], cap))


def cosine(steps: int = 1000, s: float = 0.008, cap: float = 0.999) -> Discrete:
    """Returns the squared cosine schedule, capped: abar(u) = cos^2(pi / 2 (u + s) / (1 + s)).

    Source: Nichol & Dhariwal 2021, arXiv 2102.09672, equation 17.
    """
    return from_alpha_bar(lambda u: np.cos((u + s) / (1 + s) * np.pi / 2) ** 2, steps, cap)


def sigmoid_signal(steps: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Discrete:
    """Returns the schedule whose signal abar(u) falls along a sigmoid.

    Source: Jabri et al. 2022, arXiv 2212.11972, algorithm 1.
    """
    f = lambda u: 1 / (1 + np.exp(-u / tau))
    return from_alpha_bar(lambda u: (f(end) - f(u * (end - start) + start)) / (f(end) - f(start)), steps)


def zero_terminal(schedule: Discrete) -> Discrete:
    """Shifts and scales alpha so that it ends at 0 and keeps its first value.

    Source: Lin et al. 2023, arXiv 2305.08891, algorithm 1.
    """
    if schedule.zero_terminal:
        return schedule
    alpha = np.exp(-softplus(-np.asarray(schedule.knots, np.float64)) / 2)
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    square = alpha[:-1] ** 2
    return from_log_snr(np.log(square) - np.log1p(-square), zero_terminal=True)
