"""The random numbers that an example draws from its own key.

Every random number of a loss is a function of the example's key, so it depends neither on the batch around the example
nor on how the batch is split over devices. Each use folds its own number into the keys, so the same keys may be given
to all of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.typing import Key

FIRST, TIME, NOISE, DROP, OFFSET, PERTURB, AUGMENT = range(7)
"""The number folded into an example's key for each use, so that two uses never share a draw."""


def fold(keys: Key, number: int | Array) -> Key:
    """Folds `number` into every key of keys [b]."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def uniform(keys: Key) -> Float[Array, " b"]:
    """Draws one number in (0, 1) from each key: what an example's time is made of (`times`)."""
    return jax.vmap(lambda key: jax.random.uniform(key, minval=2.0**-24))(fold(keys, TIME))


def noise_like(keys: Key, x: Float[Array, " b *s"]) -> Float[Array, " b *s"]:
    """Draws unit Gaussian noise in the shape of x, example i from key i."""
    return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], jnp.float32))(keys)
