"""A learned schedule: log-SNR as a monotone network of time (VDM, Kingma et al. 2021, arXiv 2107.00630, appendix H).

With every weight made positive (softplus), g(t) = l1(t) + l3(sigmoid(l2(l1(t)))) rises strictly in t. It is scaled to
the wanted ends,

    lambda(t) = lambda_max - (lambda_max - lambda_min) r(t),    r(t) = (g(t) - g(0)) / (g(1) - g(0)),

which may be learned too; alpha and sigma are the variance-preserving ones. So it is `LogLinear`, a schedule whose
log-SNR falls evenly between two ends, on another clock r. Fields are arrays, so gradients reach them as they do any
parameter. The inverse of r has no formula: bisection halves [0, 1] until float64 has no more bits.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.diffusion.schedule import Times, VariancePreserving, namespace, softplus
from jaxdiff.typing import Key, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LogLinear(VariancePreserving):
    """Log-SNR linear in t from ends[0] to ends[1]; networks take lambda."""

    ends: Any

    @property
    def first(self) -> float:
        return 0.0

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        top, bottom = (xp.asarray(self.ends[n], dtype=t.dtype) for n in (0, 1))
        return top - (top - bottom) * t

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        top, bottom = (xp.asarray(self.ends[n], dtype=lam.dtype) for n in (0, 1))
        return (top - lam) / (top - bottom)

    def timestep(self, t: Times) -> Times:
        return self.log_snr(t)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Learned(LogLinear):
    """Monotone log-SNR.

    Attributes:
      ends: [2] log-SNR at t = 0 and t = 1.
      slope: [] of l1.
      inner_weight: [k] of l2.
      inner_bias: [k] of l2.
      outer_weight: [k] of l3.
    """

    slope: Any
    inner_weight: Any
    inner_bias: Any
    outer_weight: Any

    def _rise(self, t: Times) -> Times:
        xp, t = namespace(t)
        each = lambda a: xp.asarray(a, dtype=t.dtype).reshape((1,) * t.ndim + (-1,))
        first = softplus(xp.asarray(self.slope, dtype=t.dtype)) * t
        inner = softplus(each(self.inner_weight)) * first[..., None] + each(self.inner_bias)
        outer = softplus(each(self.outer_weight)) / (1 + xp.exp(-inner))
        return first + outer.sum(-1)

    def clock(self, t: Times) -> Times:
        """Returns r(t), from 0 to 1."""
        xp, t = namespace(t)
        low, high = (self._rise(xp.full_like(t, end)) for end in (0, 1))
        return (self._rise(t) - low) / (high - low)

    def log_snr(self, t: Times) -> Times:
        return LogLinear(self.ends).log_snr(self.clock(t))

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        low, high = xp.zeros_like(lam), xp.ones_like(lam)
        for _ in range(54):
            middle = (low + high) / 2
            noisy = self.log_snr(middle) < lam
            low, high = xp.where(noisy, low, middle), xp.where(noisy, middle, high)
        return (low + high) / 2


def init(key: Key, log_snr_max: float = 13.3, log_snr_min: float = -5.0, width: int = 1024) -> Params:
    """Makes the parameters of a schedule to learn, {field of `Learned`: array}, nearly linear in log-SNR at first.

    Raises:
      ValueError: if the ends are not in order.
    """
    if not log_snr_min < log_snr_max:
        raise ValueError(f"log_snr_min = {log_snr_min} is not below log_snr_max = {log_snr_max}")
    weight, bias = jax.random.normal(key, (2, width), jnp.float32)
    return {
        "ends": jnp.array([log_snr_max, log_snr_min], jnp.float32),
        "slope": jnp.float32(1),
        "inner_weight": weight,
        "inner_bias": bias,
        "outer_weight": jnp.full(width, -8, jnp.float32),
    }
