"""Gives the terms of an autoencoder's loss beside the distance of its images: corrupted inputs, sparse codes, a prior.

Sources: Vincent et al. 2010 (denoising), JMLR 11, section 3; Ng 2011 (sparse), CS294A lecture notes; Kingma and Welling
2014, arXiv 1312.6114, appendix B (the KL divergence of a Gaussian).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.typing import Key

Corruption = Literal["none", "gaussian", "masking", "salt_and_pepper"]


def corrupt(x: Float[Array, "b h w c"], keys: Key, kind: Corruption, amount: float) -> Float[Array, "b h w c"]:
    """Returns images in [-1, 1] that are spoilt, each by its own key.

    `amount` is the deviation of Gaussian noise, or the part of the pixels that turn grey (masking), or black or white
    (salt and pepper).
    """

    def one(key: Key, x: Array) -> Array:
        if kind == "gaussian":
            return x + amount * jax.random.normal(key, x.shape)
        where, which = jax.random.split(key)
        gone = jax.random.bernoulli(where, amount, (*x.shape[:2], 1))
        if kind == "masking":
            return jnp.where(gone, 0.0, x)
        return jnp.where(gone, jnp.where(jax.random.bernoulli(which, 0.5, gone.shape), 1.0, -1.0), x)

    return x if kind == "none" else jax.vmap(one)(keys, x)


def gaussian_kl(mean: Float[Array, " b *s"], log_var: Float[Array, " b *s"]) -> Float[Array, " b"]:
    """Returns KL(N(mean, exp(log_var)) | N(0, 1)) of each example in nats, summed over its numbers."""
    each = (mean**2 + jnp.exp(log_var) - 1 - log_var) / 2
    return each.reshape(each.shape[0], -1).sum(1)


def bernoulli_kl(active: Float[Array, " d"], rho: float = 0.05) -> Float[Array, ""]:
    """Returns the sum of KL(rho | active) over units, `active` in (0, 1) being how often each is on."""
    active = jnp.clip(active, 1e-6, 1 - 1e-6)
    return (rho * jnp.log(rho / active) + (1 - rho) * jnp.log((1 - rho) / (1 - active))).sum()
