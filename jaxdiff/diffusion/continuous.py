"""Schedules given by a formula in continuous time; `schedule` offers them beside those of trained steps.

Where the process preserves variance, the log-SNR lambda gives both scales: alpha = sqrt(sigmoid(lambda)) and
sigma = sqrt(sigmoid(-lambda)). The VP equation dx = -beta(t) x / 2 dt + sqrt(beta(t)) dw integrates to
alpha^2 = exp(-B), sigma^2 = 1 - exp(-B) with B = int beta, hence lambda = -log(expm1(B)); sub-VP keeps that alpha with
sigma = 1 - exp(-B), hence alpha / sigma = 1 / (2 sinh(B / 2)). Both invert in closed form, B being quadratic in t. None
of the formulas subtracts nearly equal numbers.

The geometric variance-exploding schedule stops at sigma_min and not at clean data; below t = `EDGE` its sigma falls
linearly to 0, so that it too is strictly monotone and invertible down to clean data.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    Times: TypeAlias = Any  # one formula for two kinds of arrays: more than a static checker can follow
else:
    Times = Float[Array, " *t"] | Float[np.ndarray, " *t"] | float | np.floating
EDGE = 1e-5
FIRST = 1e-3
"""The least noisy time to train at, of schedules that do not say: the first of a thousand steps."""


def namespace(t: Any) -> tuple[Any, Any]:
    """Returns the array namespace of t (NumPy or jax.numpy), and t as an array of it.

    A Python number is a float64 of NumPy.
    """
    if not hasattr(t, "__array_namespace__"):
        t = np.float64(t)
    return t.__array_namespace__(), t


def softplus(x: Times) -> Times:
    """Returns log(1 + exp(x)), which is minus the logarithm of sigmoid(-x)."""
    xp, x = namespace(x)
    return xp.logaddexp(x, xp.zeros_like(x))


class VariancePreserving:
    """alpha and sigma from `log_snr`, for every schedule with alpha^2 + sigma^2 = 1."""

    @property
    def first(self) -> float:
        return FIRST

    def log_snr(self, t: Times) -> Times:
        raise NotImplementedError

    def alpha(self, t: Times) -> Times:
        xp, t = namespace(t)
        return xp.exp(-softplus(-self.log_snr(t)) / 2)

    def sigma(self, t: Times) -> Times:
        xp, t = namespace(t)
        return xp.exp(-softplus(self.log_snr(t)) / 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VP(VariancePreserving):
    """Beta linear in t from `beta_min` to `beta_max`; networks take 999 t."""

    beta_min: Any
    beta_max: Any

    def integral(self, t: Times) -> Times:
        return t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)

    def integral_time(self, B: Times) -> Times:
        xp, B = namespace(B)
        return 2 * B / (self.beta_min + xp.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * B))

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        with np.errstate(divide="ignore"):
            return -xp.log(xp.expm1(self.integral(t)))

    def time(self, log_snr: Times) -> Times:
        return self.integral_time(softplus(-log_snr))

    def timestep(self, t: Times) -> Times:
        return 999 * t


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SubVP(VP):
    """The alpha of VP with a smaller sigma."""

    def alpha(self, t: Times) -> Times:
        xp, t = namespace(t)
        return xp.exp(-self.integral(t) / 2)

    def sigma(self, t: Times) -> Times:
        xp, t = namespace(t)
        return -xp.expm1(-self.integral(t))

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        with np.errstate(divide="ignore"):
            return -2 * xp.log(2 * xp.sinh(self.integral(t) / 2))

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        return self.integral_time(2 * xp.arcsinh(xp.exp(-lam / 2) / 2))


class VarianceExploding:
    """Alpha is 1, for schedules given by sigma alone; networks take log(sigma) / 4 unless the schedule says else."""

    def sigma(self, t: Times) -> Times:
        raise NotImplementedError

    def alpha(self, t: Times) -> Times:
        xp, t = namespace(t)
        return xp.ones_like(t)

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        with np.errstate(divide="ignore"):
            return -2 * xp.log(self.sigma(t))

    def timestep(self, t: Times) -> Times:
        return -self.log_snr(t) / 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VE(VarianceExploding):
    """sigma = sigma_min (sigma_max / sigma_min)^t, linear to 0 below `EDGE`; networks take sigma itself (NCSN++)."""

    sigma_min: Any
    sigma_max: Any

    @property
    def first(self) -> float:
        return EDGE

    def sigma(self, t: Times) -> Times:
        xp, t = namespace(t)
        rate = xp.log(xp.asarray(self.sigma_max / self.sigma_min, dtype=t.dtype))
        return self.sigma_min * xp.exp(rate * xp.maximum(t, EDGE)) * xp.minimum(t / EDGE, xp.ones_like(t))

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        rate = xp.log(xp.asarray(self.sigma_max / self.sigma_min, dtype=lam.dtype))
        ratio = xp.exp(-lam / 2) / self.sigma_min
        with np.errstate(divide="ignore"):
            t = xp.log(ratio) / rate
        return xp.where(t < EDGE, ratio * EDGE * xp.exp(-rate * EDGE), t)[()]

    def timestep(self, t: Times) -> Times:
        return self.sigma(t)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EDM(VarianceExploding):
    """sigma = sigma_max t; networks take log(sigma) / 4; the smallest trained level is 0.002."""

    sigma_max: Any

    @property
    def first(self) -> Any:
        return 0.002 / self.sigma_max

    def sigma(self, t: Times) -> Times:
        return self.sigma_max * t

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        return xp.exp(-lam / 2) / self.sigma_max


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Flow:
    """alpha = 1 - u, sigma = u with u = shift t / (1 + (shift - 1) t): u / (1 - u) is t / (1 - t) times the shift."""

    shift: Any

    @property
    def first(self) -> float:
        return FIRST

    def alpha(self, t: Times) -> Times:
        return (1 - t) / (1 + (self.shift - 1) * t)

    def sigma(self, t: Times) -> Times:
        return self.shift * t / (1 + (self.shift - 1) * t)

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        with np.errstate(divide="ignore"):
            return 2 * (xp.log1p(-t) - xp.log(self.shift * t))

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        return 1 / (1 + self.shift * xp.exp(lam / 2))

    def timestep(self, t: Times) -> Times:
        return 1000 * self.sigma(t)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cosine(VariancePreserving):
    """lambda = 2 log(shift / tan(pi t / 2)); networks take lambda."""

    shift: Any

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        # the tangent of a right angle is not infinite in floating point: near t = 1 use that of the other angle
        near, far = xp.tan(np.pi / 2 * xp.minimum(t, 1 - t)), t > 0.5
        with np.errstate(divide="ignore"):
            return 2 * (xp.where(far, xp.log(near), -xp.log(near)) + xp.log(xp.asarray(self.shift, dtype=t.dtype)))

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        return xp.arctan(self.shift * xp.exp(-lam / 2)) * 2 / np.pi

    def timestep(self, t: Times) -> Times:
        return self.log_snr(t)


def _ordered(name: str, low: float, high: float) -> None:
    if not 0 < low < high:
        raise ValueError(f"{name}_min = {low} and {name}_max = {high}: expected 0 < {name}_min < {name}_max")


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> VP:
    """Returns the variance-preserving SDE.

    Source: Song et al. 2021, arXiv 2011.13456, equation 32; networks take 999 t.
    """
    _ordered("beta", beta_min, beta_max)
    return VP(float(beta_min), float(beta_max))


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> SubVP:
    """Returns the sub-VP SDE. Source: Song et al. 2021, arXiv 2011.13456, equation 29."""
    _ordered("beta", beta_min, beta_max)
    return SubVP(float(beta_min), float(beta_max))


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> VE:
    """Returns the geometric variance-exploding SDE. Source: Song et al. 2021, arXiv 2011.13456, equation 30."""
    _ordered("sigma", sigma_min, sigma_max)
    return VE(float(sigma_min), float(sigma_max))


def edm(sigma_max: float = 80.0) -> EDM:
    """Returns the schedule with sigma as time. Source: Karras et al. 2022, arXiv 2206.00364, table 1."""
    if not sigma_max > 0:
        raise ValueError(f"sigma_max = {sigma_max}: expected a positive number")
    return EDM(float(sigma_max))


def flow(shift: float = 1.0) -> Flow:
    """Returns a rectified flow; `shift` > 1 spends more time in noise, as large pictures need (`resolution_shift`).

    Source: Esser et al. 2024, arXiv 2403.03206, equation 23; networks take 1000 sigma.
    """
    if not shift > 0:
        raise ValueError(f"shift = {shift}: expected a positive number, 1 for none")
    return Flow(float(shift))


def shifted_cosine(shift: float = 1.0) -> Cosine:
    """Returns the continuous cosine schedule; `shift` is base resolution / resolution, below 1 for large pictures.

    Source: Hoogeboom et al. 2023 (simple diffusion), arXiv 2301.11093, equations 3 and 5.
    """
    if not shift > 0:
        raise ValueError(f"shift = {shift}: expected a positive number, 1 for none")
    return Cosine(float(shift))


def resolution_shift(tokens: int, base: tuple[int, float] = (256, 0.5), top: tuple[int, float] = (4096, 1.15)) -> float:
    """Returns exp(mu), with mu linear in the number of tokens through two (tokens, mu) points.

    Source: the released Flux sampler; Esser et al. 2024, section 5.3.2, has sqrt(tokens / base tokens) instead.
    """
    return float(np.exp(base[1] + (tokens - base[0]) * (top[1] - base[1]) / (top[0] - base[0])))
