"""Data for which everything is known in closed form: the oracle of the tests, and a place to study samplers.

For a mixture of Gaussians with weights w_k, means m_k and covariances C_k, the noisy picture x_t = alpha x0 + sigma eps
is a mixture of N(alpha m_k, alpha^2 C_k + sigma^2 I) and the posterior mean of x0 is

    D(x_t) = sum_k r_k(x_t) (m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^-1 (x_t - alpha m_k)),

with r_k the posterior weights. With C_k = V diag(c) V^T each inverse is a division by alpha^2 c + sigma^2. The score
follows from Tweedie's formula, score = (alpha D - x_t) / sigma^2.

For a single Gaussian the probability-flow ODE has a closed form too. It carries the quantiles of each principal axis:

    x_s = alpha_s m + V diag(sqrt((alpha_s^2 c + sigma_s^2) / (alpha_t^2 c + sigma_t^2))) V^T (x_t - alpha_t m).

States are [b, d], alpha and sigma numbers or [b]; everything takes float64 NumPy or traced float32, as schedules do.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.diffusion.schedule import Schedule, Times, namespace
from jaxdiff.typing import Denoise

if TYPE_CHECKING:
    Points: TypeAlias = Any
    Values: TypeAlias = Any
else:
    Points = Float[Array, "b d"] | Float[np.ndarray, "b d"]
    Values = Float[Array, " b"] | Float[np.ndarray, " b"]


def _over_points(scale: Any) -> Any:
    """Returns a scale for all points, or one for each [b], ready to multiply [k, b, d]."""
    return scale.reshape(1, -1, 1) if np.ndim(scale) else scale


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture of k Gaussians in d dimensions.

    Attributes:
      weights: [k], positive, of sum 1.
      means: [k, d].
      variances: [k, d], the eigenvalues of each covariance.
      axes: [k, d, d], its eigenvectors in columns.
    """

    weights: Any
    means: Any
    variances: Any
    axes: Any

    def _parts(self, x: Points, alpha: Any, sigma: Any) -> tuple[Any, Any, Any]:
        """Returns, for each component [k, b], the weighted log density, and [k, b, d] coordinates and variances."""
        xp = namespace(x)[0]
        as_x = lambda a: xp.asarray(a, dtype=x.dtype)
        alpha, sigma = _over_points(alpha), _over_points(sigma)
        y = xp.einsum("kbd,kde->kbe", x[None] - alpha * as_x(self.means)[:, None], as_x(self.axes))
        total = alpha**2 * as_x(self.variances)[:, None] + sigma**2
        log_p = xp.log(as_x(self.weights))[:, None] - 0.5 * (y**2 / total + xp.log(2 * np.pi * total)).sum(-1)
        return log_p, y, total

    def log_prob(self, x: Points, alpha: Any = 1.0, sigma: Any = 0.0) -> Values:
        """Returns the log density [b] of alpha x0 + sigma eps at x, in nats; of the data itself by default."""
        xp = namespace(x)[0]
        return xp.logaddexp.reduce(self._parts(x, alpha, sigma)[0], axis=0)

    def posterior_weights(self, x: Points, alpha: Any = 1.0, sigma: Any = 0.0) -> Any:
        """Returns the probability [k, b] that each component made x."""
        xp = namespace(x)[0]
        log_p = self._parts(x, alpha, sigma)[0]
        return xp.exp(log_p - xp.logaddexp.reduce(log_p, axis=0)[None])

    def x0(self, x: Points, alpha: Any, sigma: Any) -> Points:
        """Returns the posterior mean of x0 given x = alpha x0 + sigma eps."""
        xp = namespace(x)[0]
        as_x = lambda a: xp.asarray(a, dtype=x.dtype)
        log_p, y, total = self._parts(x, alpha, sigma)
        r = xp.exp(log_p - xp.logaddexp.reduce(log_p, axis=0)[None])
        means = xp.einsum(
            "kbd,ked->kbe", _over_points(alpha) * as_x(self.variances)[:, None] / total * y, as_x(self.axes)
        )
        return (r[..., None] * (as_x(self.means)[:, None] + means)).sum(0)

    def score(self, x: Points, alpha: Any, sigma: Any) -> Points:
        """Returns the gradient of `log_prob`."""
        wide, noise = (_over_points(a)[0] if np.ndim(a) else a for a in (alpha, sigma))
        return (wide * self.x0(x, alpha, sigma) - x) / noise**2

    def denoiser(self, schedule: Schedule) -> Denoise:
        """Returns the exact denoiser, as samplers take it."""
        return lambda x, t, aux: self.x0(x, schedule.alpha(t), schedule.sigma(t))

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns `count` float64 points of the data [count, d]."""
        k = rng.choice(len(self.weights), size=count, p=np.asarray(self.weights))
        spread = rng.standard_normal((count, np.shape(self.means)[1])) * np.sqrt(np.asarray(self.variances)[k])
        return np.asarray(self.means)[k] + np.einsum("bd,bed->be", spread, np.asarray(self.axes)[k])

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean [d] and the covariance [d, d] of the data."""
        w, m, axes = (np.asarray(a) for a in (self.weights, self.means, self.axes))
        mean = w @ m
        inner = np.einsum("k,kde,ke,kfe->df", w, axes, np.asarray(self.variances), axes)
        return mean, inner + np.einsum("k,kd,ke->de", w, m - mean, m - mean)

    def flow(self, x: Points, schedule: Schedule, t: Times, s: Times) -> Points:
        """Returns where the probability-flow ODE carries x from time t to time s; for a single Gaussian only."""
        if len(self.weights) != 1:
            raise ValueError(f"the flow has a closed form for one Gaussian, this mixture has {len(self.weights)}")
        xp = namespace(x)[0]
        _, y, total = self._parts(x, schedule.alpha(t), schedule.sigma(t))
        after = schedule.alpha(s) ** 2 * xp.asarray(self.variances[0]) + schedule.sigma(s) ** 2
        y = y[0] * xp.sqrt(after[None] / total[0])
        return (schedule.alpha(s) * xp.asarray(self.means[0]))[None] + y @ xp.asarray(self.axes[0]).T


def mixture(
    weights: Float[np.ndarray, " k"], means: Float[np.ndarray, "k d"], covariances: Float[np.ndarray, "k d d"]
) -> Mixture:
    """Returns a mixture from its covariances; weights are normalised.

    Raises:
      ValueError: if a weight is not positive or a covariance not positive definite.
    """
    variances, axes = np.linalg.eigh(covariances)
    if not (np.all(weights > 0) and np.all(variances > 0)):
        raise ValueError(f"weights {weights} must be positive and the covariances positive definite ({variances})")
    return Mixture(weights / weights.sum(), means, variances, axes)


def gaussian(mean: Float[np.ndarray, " d"], covariance: Float[np.ndarray, "d d"]) -> Mixture:
    """Returns one Gaussian."""
    return mixture(np.ones(1), mean[None], covariance[None])
