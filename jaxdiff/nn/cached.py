"""Attention of one new token over those before it, whose keys and values are kept: what a step of drawing needs."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Kept = tuple[Array, Array]
"""Keys and values of a layer, [b n h d], with room for those to come."""


def keep(kept: Kept, own: Kept, at: Any) -> Kept:
    """Returns what is kept with the keys and values [b 1 h d] of the token at place `at`."""
    k, v = (jax.lax.dynamic_update_slice(old, new, (0, at, 0, 0)) for old, new in zip(kept, own, strict=True))
    return k, v


def attend_one(q: Float[Array, "b 1 h d"], kept: Kept, seen: Bool[Array, " n"]) -> Float[Array, "b 1 h d"]:
    """Returns attention of one query by sums where the keys lie: for a product of matrices they would be copied."""
    k, v = kept
    scores = (q.astype(jnp.float32) * q.shape[-1] ** -0.5 * k).sum(-1)
    weights = jax.nn.softmax(jnp.where(seen[None, :, None], scores, jnp.finfo(jnp.float32).min), 1)
    return (weights[..., None] * v).sum(1, keepdims=True).astype(q.dtype)
