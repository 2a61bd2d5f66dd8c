"""The bound of a discrete VAE: codes relaxed by Gumbel noise, a uniform prior, and pixels in an open interval.

With K codes at each position i of a picture x,

    log p(x) >= E_q(z|x) log p(x | z) - sum_i KL(q(z_i | x) | 1/K),    KL = log K + sum_k q_k log q_k.

In training z is not drawn but relaxed, softmax((logits + g) / temperature) with Gumbel noise g, which a gradient passes
through; as the temperature falls it becomes the draw argmax(logits + g).

A pixel of value v is u = (1 - 2 e) v / 255 + e in (e, 1 - e), with e = 0.1, so that its logit is finite, and

    log p(u) = -|logit(u) - m| / b - log(2 b u (1 - u))

of a logit-Laplace distribution with location m and scale b.

Sources: Ramesh et al. 2021 (DALL-E), arXiv 2102.12092, section 2.1, appendices A.2 and A.3; Jang et al. 2017 (the
Gumbel softmax), arXiv 1611.01144.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdiff.typing import Key

EDGE = 0.1
"""The distance that pixels keep from 0 and 1."""


def inside(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns pictures in [-1, 1] as u in [e, 1 - e]."""
    return (0.5 - EDGE) * x + 0.5


def outside(u: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns u as pictures in [-1, 1], which it undoes; u beyond the edges goes beyond them."""
    return (u - 0.5) / (0.5 - EDGE)


def logit_laplace(
    m: Float[Array, "*s"], log_b: Float[Array, "*s"], u: Float[Array, "*s"], least: float = -5.0
) -> Float[Array, "*s"]:
    """Returns the log of the density of u in (0, 1); ln b counts as `least` or more.

    A colour that fills a picture would raise the density without end. By default b is half a grey level at least.
    """
    log_b = jnp.maximum(log_b, least)
    at = jnp.log(u) - jnp.log1p(-u)
    return -jnp.abs(at - m) * jnp.exp(-log_b) - log_b - np.log(2) - jnp.log(u) - jnp.log1p(-u)


def kl_to_uniform(logits: Float[Array, "*s k"]) -> Float[Array, "*s"]:
    """Returns KL(softmax(logits) | 1/K) in nats, from 0 to log K."""
    log_q = jax.nn.log_softmax(logits)
    return np.log(logits.shape[-1]) + (jnp.exp(log_q) * log_q).sum(-1)


def perturbed(logits: Float[Array, " b *s"], keys: Key) -> Float[Array, " b *s"]:
    """Returns logits + Gumbel noise, each example's from its own of keys [b]; the largest says which code is drawn."""
    return logits + jax.vmap(lambda key, one: jax.random.gumbel(key, one.shape))(keys, logits)


def one_hot(logits: Float[Array, "*s k"]) -> Float[Array, "*s k"]:
    """Returns the code with the largest logit, as K numbers."""
    return jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])


def annealed(step: Int[Array, ""] | int, first: float, last: float, steps: int) -> Float[Array, ""]:
    """Returns what goes from `first` to `last` in `steps` steps along half a cosine, and stays there."""
    part = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    return last + (first - last) * (1 + jnp.cos(np.pi * part)) / 2
