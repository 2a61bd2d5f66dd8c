"""Objectives: a weighted squared error of the network's own output, at random times, one number for each example.

**Weights.** Every regression loss of the field is E w(lambda) |x0_hat - x0|^2 for some w of the log-SNR: with
snr = exp(lambda), an eps error is an x0 error times snr, a v error (variance-preserving) one times snr + 1. So a weight
here is a function of lambda in x0 units, and means the same whatever the network predicts:

    name           w(lambda)                             as published
    snr            snr                                   eps error, "simple" of DDPM
    min_snr        min(snr, gamma)                       Hang et al. 2023, arXiv 2303.09556, equation 5
    v              snr + 1                               v error, "SNR+1" of Salimans & Ho 2022, arXiv 2202.00512
    capped_v       min(snr + 1, cap)                     the same, not led by nearly clean pictures
    truncated_snr  max(snr, 1)                           Salimans & Ho 2022, "truncated SNR"
    p2             snr / (k + snr)^gamma                 Choi et al. 2022, arXiv 2204.00227, equation 7
    edm            snr + 1 / sigma_data^2                Karras et al. 2022, arXiv 2206.00364, table 1
    sigmoid        snr sigmoid(bias - lambda)            Kingma & Gao 2023, arXiv 2303.00848, section 6

`simple` (no weight at all) is the plain error of the output, whatever that is. The weight multiplies the error of the
output by w (d x0 / d output)^2, put together in logarithms, so that neither end overflows.

**Use.** A task writes its own batch and conditioning around `denoising`, at times of `times`:

    loss = denoising(network, schedule.cosine(), "x0", capped_v(5.0))
    def loss_fn(params, batch, keys):
        cond = drop(keys, encode(params, batch["tokens"]), null, rate=0.1)      # classifier-free guidance
        return loss(params, batch["image"], times.uniform()(draws.uniform(keys)), cond, keys).mean()

`process.ProcessConfig` composes all this from names.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdiff.diffusion import draws, prediction
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Key, Network, Params

Weight: TypeAlias = Callable[[Array], Array]
"""lambda -> log w(lambda), in x0 units."""

NoiseSampler: TypeAlias = Callable[[Key, Array], Array]
"""(keys [b], x0 [b ...]) -> eps [b ...]."""


def snr() -> Weight:
    """Returns the weight snr: the plain error of eps."""
    return lambda lam: lam


def min_snr(gamma: float = 5.0) -> Weight:
    """Returns the weight min(snr, gamma)."""
    return lambda lam: jnp.minimum(lam, jnp.log(gamma))


def v() -> Weight:
    """Returns the weight snr + 1: the plain error of v on a variance-preserving schedule."""
    return lambda lam: jax.nn.softplus(lam)


def capped_v(cap: float = 5.0) -> Weight:
    """Returns the weight min(snr + 1, cap)."""
    return lambda lam: jnp.minimum(jax.nn.softplus(lam), jnp.log(cap))


def truncated_snr() -> Weight:
    """Returns the weight max(snr, 1)."""
    return lambda lam: jnp.maximum(lam, 0)


def p2(gamma: float = 1.0, k: float = 1.0) -> Weight:
    """Returns the weight snr / (k + snr)^gamma."""
    return lambda lam: lam - gamma * jnp.logaddexp(jnp.log(k), lam)


def edm(sigma_data: float = 0.5) -> Weight:
    """Returns the weight snr + 1 / sigma_data^2."""
    return lambda lam: jnp.logaddexp(lam, -2 * jnp.log(sigma_data))


def sigmoid(bias: float = 0.0) -> Weight:
    """Returns the weight snr / (1 + exp(lambda - bias)): the eps error, of noisier pictures only for a smaller bias."""
    return lambda lam: lam + jax.nn.log_sigmoid(bias - lam)


def per_example(x: Float[Array, " b *s"]) -> Float[Array, " b"]:
    """Returns the mean over everything but the batch."""
    return x.reshape(x.shape[0], -1).mean(axis=1)


def weighted_mse(
    output: Float[Array, " b *s"],
    x0: Float[Array, " b *s"],
    eps: Float[Array, " b *s"],
    t: Float[Array, " b"],
    schedule: Schedule,
    kind: str,
    weight: Weight | None = None,
) -> Float[Array, " b"]:
    """Returns w(lambda) |x0_hat - x0|^2 / size for each example, from the output's own error.

    Without a weight that error.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    goal = prediction.target(x0, eps, over_pixels(alpha, x0), over_pixels(sigma, x0), kind)
    error = per_example((output - goal) ** 2)
    if weight is None:
        return error
    return error * jnp.exp(weight(schedule.log_snr(t)) + 2 * jnp.log(prediction.slope(alpha, sigma, kind)))


def independent(keys: Key, x0: Float[Array, " b *s"]) -> Float[Array, " b *s"]:
    """Draws unit Gaussian noise that does not depend on the picture."""
    return draws.noise_like(draws.fold(keys, draws.NOISE), x0)


def offset(noise: NoiseSampler, scale: float) -> NoiseSampler:
    """Adds scale x N(0, 1) to `noise`, one draw for each channel of each picture: models learn the mean colour too.

    Source: Guttenberg 2023, "Diffusion with offset noise", crosslabs.org.
    """

    def sample(keys: Key, x0: Array) -> Array:
        one = x0.reshape(x0.shape[0], -1, x0.shape[-1])[:, 0]
        shift = draws.noise_like(draws.fold(keys, draws.OFFSET), one)
        return noise(keys, x0) + scale * shift.reshape(x0.shape[0], *[1] * (x0.ndim - 2), x0.shape[-1])

    return sample


def noised(
    x0: Float[Array, " b *s"], eps: Float[Array, " b *s"], t: Float[Array, " b"], schedule: Schedule
) -> Float[Array, " b *s"]:
    """Returns x_t = alpha x0 + sigma eps."""
    return over_pixels(schedule.alpha(t), x0) * x0 + over_pixels(schedule.sigma(t), x0) * eps


def denoising(
    network: Network,
    schedule: Schedule,
    kind: str,
    weight: Weight | None = None,
    noise: NoiseSampler = independent,
    perturbation: float = 0.0,
) -> Callable[[Params, Array, Array, Cond, Key], Array]:
    """Returns a function (params, x0, t [b], cond, keys [b]) -> loss [b], which nearly every diffusion model minimises.

    Args:
      network: what is trained.
      schedule: the process.
      kind: what the network outputs (`prediction.KINDS`).
      weight: in x0 units; None for the plain error of the output.
      noise: (keys, x0) -> eps, to couple noise with pictures (`coupling`), or `offset` it.
      perturbation: how much fresh noise the network's input has beside eps, which stays the target (Ning et al. 2023,
        arXiv 2301.11706, algorithm 1, where it is 0.1).

    Raises:
      ValueError: if the kind is unknown or divides by an alpha that is 0 at t = 1.
    """
    prediction.check(kind, schedule)

    def loss(params: Params, x0: Array, t: Array, cond: Cond, keys: Key) -> Array:
        eps = seen = noise(keys, x0)
        if perturbation:
            seen = eps + perturbation * draws.noise_like(draws.fold(keys, draws.PERTURB), x0)
        output = prediction.evaluate(network, params, noised(x0, seen, t, schedule), t, cond, schedule, kind)
        return weighted_mse(output, x0, eps, t, schedule, kind, weight)

    return loss


def dropped(keys: Key, rate: float) -> Bool[Array, " b"]:
    """Returns which examples lose their condition, each with probability `rate`."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, rate))(draws.fold(keys, draws.DROP))


def drop(keys: Key, cond: Cond, null: Cond, rate: float = 0.1) -> Cond:
    """Returns `cond` with each example replaced by `null`'s with probability `rate`, as classifier-free guidance wants.

    `null` has the same fields, with a leading axis of b or 1.

    Source: Ho & Salimans 2022, arXiv 2207.12598, algorithm 1.
    """
    gone = dropped(keys, rate)

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(gone.reshape(gone.shape + (1,) * (a.ndim - 1)), jnp.broadcast_to(b, a.shape), a)

    return jax.tree.map(pick, cond, null)
