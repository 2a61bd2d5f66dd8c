"""Masked diffusion: tokens turn to a mask one by one, at times that are uniform in [0, 1], and a network guesses them.

At t each token is masked with probability t. In continuous time the bound on -log p(x0) is

    integral of 1/t E sum over masked i of -log p_i(x0_i | x_t) dt,

the limit of the absorbing chain of `categorical` for infinitely many steps. It is the mean over all orders of the
log-likelihood of an autoregressive model that takes the tokens in that order.

Sources: Sahoo et al. 2024 (MDLM), arXiv 2406.07524, equation 10 with alpha = 1 - t; Shi et al. 2024, arXiv 2406.04329.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.typing import Key


def noised(x0: Int[Array, " b *s"], t: Float[Array, " b"], keys: Key, mask: int) -> Int[Array, " b *s"]:
    """Returns tokens of which each is masked with probability t, each example from its own key."""
    hidden = jax.vmap(lambda key, t: jax.random.uniform(key, x0.shape[1:]) < t)(keys, t)
    return jnp.where(hidden, mask, x0)


def terms(
    logits: Float[Array, " b *s k"], x0: Int[Array, " b *s"], xt: Int[Array, " b *s"], t: Float[Array, " b"], mask: int
) -> Float[Array, " b"]:
    """Returns each example's estimate of the bound in nats, from t drawn uniformly in (0, 1]."""
    each = jnp.take_along_axis(jax.nn.log_softmax(logits), x0[..., None], -1)[..., 0]
    return -jnp.where(xt == mask, each, 0.0).reshape(len(x0), -1).sum(1) / t
