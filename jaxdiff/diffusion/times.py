"""Distributions of training times, each given by its quantile function.

A `TimeSampler` maps u, uniform in (0, 1), to a time in [0, 1], and rises: t = Q(u). So one uniform number an example is
all that is drawn, and it says in which quarter of the distribution the example lies. Losses are logged by those
quarters, from the least noisy (q0) to the noisiest (q3):

    loss_qk = mean over examples of 4 [floor(4 u) = k] loss.

Each is an unbiased estimate of the mean loss in its quarter. Being a plain mean over examples it is the same whether a
batch is averaged at once, over devices or in parts, and the four have the loss itself for their mean.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.diffusion.continuous import EDGE
from jaxdiff.diffusion.schedule import Schedule

TimeSampler: TypeAlias = Callable[[Array], Array]
"""u in (0, 1) -> the quantile of the time's distribution, in [0, 1]; elementwise."""


def uniform(low: float = 1e-3, high: float = 1.0) -> TimeSampler:
    """Returns times uniform in [low, high]; the default of 1e-3 is the first of 1000 trained steps."""
    return lambda u: low + (high - low) * u


def steps(count: int = 1000) -> TimeSampler:
    """Returns times uniform over the trained steps, t = (i + 1) / count."""
    return lambda u: (whole(u, count) + 1) / count


def levels(count: int) -> TimeSampler:
    """Returns times uniform over `count` levels, evenly spaced from the smallest of `schedule.ve` to 1.

    There the levels are NCSN's, a geometric sequence. Source: Song & Ermon 2019, arXiv 1907.05600, section 4.2.
    """
    return lambda u: jnp.maximum(whole(u, count) / (count - 1), EDGE)


def log_normal(schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> TimeSampler:
    """Returns times with log(sigma / alpha) ~ N(mean, std^2).

    Source: Karras et al. 2022, arXiv 2206.00364, table 1.
    """
    return lambda u: jnp.clip(schedule.time(-2 * (mean + std * normal_quantile(u))), 0, 1)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeSampler:
    """Returns times with logit(t) ~ N(mean, std^2), for flows.

    Source: Esser et al. 2024, arXiv 2403.03206, equation 19.
    """
    return lambda u: jax.nn.sigmoid(mean + std * normal_quantile(u))


def mode(scale: float = 1.29) -> TimeSampler:
    """Returns times heavy in the middle: t = 1 - w - scale (cos^2(pi w / 2) - 1 + w) with w = 1 - u.

    Source: Esser et al. 2024, arXiv 2403.03206, equation 20.
    """
    return lambda u: u - scale * (jnp.sin(np.pi / 2 * u) ** 2 - u)


def whole(u: Float[Array, " *b"], count: Array | int) -> Float[Array, " *b"]:
    """Turns u in (0, 1) into one of 0 ... count - 1, all equally likely."""
    return jnp.minimum(jnp.floor(u * count), count - 1.0)


def normal_quantile(u: Float[Array, " *b"]) -> Float[Array, " *b"]:
    """Returns the quantile function of the unit Gaussian."""
    return jax.scipy.special.ndtri(u)


def by_quarter(u: Float[Array, " b"], losses: Float[Array, " b"]) -> dict[str, Array]:
    """Returns the mean loss in each quarter of the times, as the module docstring has it."""
    quarter = whole(u, 4)
    return {f"loss_q{k}": 4 * jnp.where(quarter == k, losses, 0).mean() for k in range(4)}
