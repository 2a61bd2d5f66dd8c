"""Likelihoods: how likely a picture of whole levels is, for every distribution of its values that a network may give.

A picture has `levels` values a channel, 0 .. L - 1. Distributions of numbers place level k at 2 k / (L - 1) - 1 and
give it the mass of the interval of width 2 / (L - 1) around it, the first and last level also the tails:

    P(k) = F((x_k + 1 / (L - 1) - m) / s) - F((x_k - 1 / (L - 1) - m) / s).

Of logistics, F is the sigmoid and F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)), whose logarithm is exact far from m too.

Bits/dim are -log2 P / d. Sources: Salimans et al. 2017 (PixelCNN++), arXiv 1701.05517, equation 2 and section 2.2;
Kingma et al. 2016, arXiv 1606.04934, appendix (discretised logistic).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxdiff.typing import Key

_LEAST = -7.0
"""The least logarithm of a scale: of 256 levels a fourteenth of the interval that a level has."""


def to_levels(image: UInt8[Array, "*s"], levels: int) -> Int[Array, "*s"]:
    """Returns the level nearest to each value."""
    return (image.astype(jnp.int32) * (levels - 1) + 127) // 255


def to_values(x: Int[Array, "*s"], levels: int) -> UInt8[Array, "*s"]:
    """Returns the value of each level, from black to white in equal steps; of 256 levels the level itself."""
    return jnp.asarray(np.round(np.linspace(0, 255, levels)).astype(np.uint8))[x]


def unit(x: Int[Array, "*s"], levels: int) -> Float[Array, "*s"]:
    """Returns levels in [-1, 1]."""
    return x.astype(jnp.float32) * (2 / (levels - 1)) - 1


def bits(log_p: Float[Array, " b"], dims: int) -> Float[Array, " b"]:
    """Returns bits/dim of nats."""
    return -log_p / (dims * np.log(2))


def categorical(logits: Float[Array, "*s k"], x: Int[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns log P of each value."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), x[..., None], -1)[..., 0]


def logistic(
    mean: Float[Array, "*s"], log_scale: Float[Array, "*s"], x: Int[Array, "*s"], levels: int
) -> Float[Array, "*s"]:
    """Returns log P of each level under a discretised logistic."""
    scale, half = jnp.exp(-jnp.maximum(log_scale, _LEAST)), 1 / (levels - 1)
    off = unit(x, levels) - mean
    above, below = (off + half) * scale, (off - half) * scale
    upper = jnp.where(x == levels - 1, 0.0, jax.nn.log_sigmoid(above))
    lower = jnp.where(x == 0, 0.0, jax.nn.log_sigmoid(-below))
    inside = (x > 0) & (x < levels - 1)
    return upper + lower + jnp.where(inside, jnp.log(-jnp.expm1(-2 * half * scale)), 0.0)


def gaussian(
    mean: Float[Array, "*s"], log_scale: Float[Array, "*s"], x: Int[Array, "*s"], levels: int
) -> Float[Array, "*s"]:
    """Returns log P of each level under a discretised Gaussian of deviation exp(log_scale)."""
    scale, half = jnp.exp(-jnp.maximum(log_scale, _LEAST)), 1 / (levels - 1)
    off = unit(x, levels) - mean
    mirrored = off > 0  # of the two tails the small one's logarithm is exact
    above, below = (jnp.where(mirrored, half - off, off + half), jnp.where(mirrored, -off - half, off - half))
    first = jnp.where(mirrored, x == levels - 1, x == 0)
    last = jnp.where(mirrored, x == 0, x == levels - 1)
    a = jnp.where(last, 0.0, jax.scipy.special.log_ndtr(jnp.where(last, 0.0, above * scale)))
    b = jax.scipy.special.log_ndtr(jnp.where(first, -1.0, below * scale))
    gap = jnp.minimum(jnp.where(first, -1.0, b - a), -1e-6)
    return a + jnp.where(first, 0.0, jnp.log(-jnp.expm1(gap)))


def mixture_outputs(channels: int, mixtures: int) -> int:
    """Returns how many numbers say a mixture: a weight each, a mean and a scale a channel, and couplings."""
    return mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


def _mixture(out: Float[Array, "*s o"], channels: int) -> tuple[Array, Array, Array, Array]:
    """Returns logits [*s k], means and log-scales [*s k c], and coefficients of earlier channels [*s k c(c-1)/2]."""
    each = 1 + 2 * channels + channels * (channels - 1) // 2
    out = out.reshape(*out.shape[:-1], -1, each)
    mean, scale = out[..., 1 : 1 + channels], out[..., 1 + channels : 1 + 2 * channels]
    return out[..., 0], mean, scale, jnp.tanh(out[..., 1 + 2 * channels :])


def _moved(mean: Array, coefficients: Array, x: Array, channel: int) -> Array:
    """Returns the mean of a channel [*s k], moved by the channels x [*s >=channel] before it."""
    at = channel * (channel - 1) // 2
    return mean[..., channel] + sum(coefficients[..., at + c] * x[..., None, c] for c in range(channel))


def logistic_mixture(out: Float[Array, "*s o"], x: Int[Array, "*s c"], levels: int) -> Float[Array, "*s"]:
    """Returns log P of each pixel under a mixture of logistics whose means later channels move with earlier ones."""
    channels, at = x.shape[-1], unit(x, levels)
    weights, means, scales, coefficients = _mixture(out, channels)
    log_p = jax.nn.log_softmax(weights)
    for c in range(channels):
        mean = _moved(means, coefficients, at, c)
        log_p += logistic(mean, scales[..., c], jnp.broadcast_to(x[..., None, c], mean.shape), levels)
    return jax.nn.logsumexp(log_p, -1)


def draw_categorical(key: Key, logits: Float[Array, " k"], temperature: Float[Array, ""]) -> Int[Array, " 1"]:
    """Returns a level drawn from softmax(logits / temperature)."""
    return jax.random.categorical(key, logits / temperature)[None]


def draw_logistic_mixture(
    key: Key, out: Float[Array, " o"], channels: int, levels: int, temperature: Float[Array, ""]
) -> Int[Array, " c"]:
    """Returns a pixel drawn from a mixture; the temperature divides its logits and multiplies its scales."""
    which, noise = jax.random.split(key)
    weights, means, scales, coefficients = _mixture(out, channels)
    k = jax.random.categorical(which, weights / temperature)[None]
    scale = temperature * jnp.exp(jnp.maximum(scales[k][0], _LEAST))
    drawn, x = jax.random.logistic(noise, (channels,)), jnp.zeros((0,), jnp.int32)
    for c in range(channels):
        value = _moved(means[k], coefficients[k], unit(x, levels), c)[0] + scale[c] * drawn[c]
        level = jnp.clip(jnp.round((value + 1) * (levels - 1) / 2), 0, levels - 1)
        x = jnp.append(x, level.astype(jnp.int32))
    return x
