"""Draws of tokens from a network's logits: temperature, the k likeliest, the likeliest that hold a part p, guidance.

    logits = u + guidance (c - u)

of a network with its condition (c) and without (u). Of softmax(logits / temperature) the k likeliest stay, and of those
the fewest whose probabilities sum to p or more.

Sources: Fan et al. 2018 (top-k), arXiv 1805.04833; Holtzman et al. 2020 (top-p), arXiv 1904.09751; Crowson 2021, whose
guidance of logits DALL-E mini calls super conditioning.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.typing import Key


class Numbers(NamedTuple):
    """Says how tokens are drawn, as arguments of a compiled program.

    Attributes:
      temperature: above 0; 1 is the model's own.
      top_k: how many tokens stay, from 1.
      top_p: part of the probability that stays, above 0 and at most 1.
      guidance: scale of guidance, where the network is called without its condition too.
    """

    temperature: Any
    top_k: Any
    top_p: Any
    guidance: Any


def guided(logits: Float[Array, "b k"], guidance: Any) -> Float[Array, "c k"]:
    """Returns guided logits of a batch whose first half has its condition, and whose second half has not."""
    with_condition, without = jnp.split(logits, 2)
    return without + guidance * (with_condition - without)


def draw(keys: Key, logits: Float[Array, "b k"], numbers: Numbers) -> Int[Array, " b"]:
    """Returns a token for each row of logits, drawn from its own of keys [b]."""
    order = jnp.argsort(-logits, -1)
    likeliest = jnp.take_along_axis(logits, order, -1) / numbers.temperature
    stays = jnp.arange(logits.shape[-1])[None] < numbers.top_k
    likeliest = jnp.where(stays, likeliest, -jnp.inf)
    p = jax.nn.softmax(likeliest)
    before = jnp.cumsum(p, -1) - p  # the first one always stays
    likeliest = jnp.where(before < numbers.top_p, likeliest, -jnp.inf)
    rank = jax.vmap(jax.random.categorical)(keys, likeliest)
    return jnp.take_along_axis(order, rank[:, None], -1)[:, 0]
