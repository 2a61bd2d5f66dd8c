"""A learned schedule: log-SNR as a monotone network of time (VDM, Kingma et al. 2021, arXiv 2107.00630, appendix H).

With every weight made positive (softplus), g(t) = l1(t) + l3(sigmoid(l2(l1(t)))) rises strictly in t. It is scaled to
the wanted ends,

    lambda(t) = lambda_max - (lambda_max - lambda_min) (g(t) - g(0)) / (g(1) - g(0)),

whose ends may be learned too; alpha and sigma are the variance-preserving ones. Its fields are arrays, so gradients
reach them as they do any parameter. The inverse has no formula: bisection halves [0, 1] until float64 has no more
bits.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxdiff.diffusion.schedule import Times, VariancePreserving, namespace, softplus


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Learned(VariancePreserving):
    """Monotone log-SNR; networks take lambda.

    Attributes:
      ends: [2] log-SNR at t = 0 and t = 1.
      slope: [] of l1.
      inner_weight: [k] of l2.
      inner_bias: [k] of l2.
      outer_weight: [k] of l3.
    """

    ends: Any
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

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        low, high = (self._rise(xp.full_like(t, end)) for end in (0, 1))
        top, bottom = (xp.asarray(self.ends[n], dtype=t.dtype) for n in (0, 1))
        return top - (top - bottom) * (self._rise(t) - low) / (high - low)

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        low, high = xp.zeros_like(lam), xp.ones_like(lam)
        for _ in range(54):
            middle = (low + high) / 2
            noisy = self.log_snr(middle) < lam
            low, high = xp.where(noisy, low, middle), xp.where(noisy, middle, high)
        return (low + high) / 2

    def timestep(self, t: Times) -> Times:
        return self.log_snr(t)


def learned(
    rng: np.random.Generator, log_snr_max: float = 13.3, log_snr_min: float = -5.0, width: int = 1024
) -> Learned:
    """A schedule to learn, nearly linear in log-SNR at first."""
    if not log_snr_min < log_snr_max:
        raise ValueError(f"log_snr_min = {log_snr_min} is not below log_snr_max = {log_snr_max}")
    ends = np.array([log_snr_max, log_snr_min])
    return Learned(ends, np.float64(1.0), rng.normal(size=width), rng.normal(size=width), np.full(width, -8.0))
