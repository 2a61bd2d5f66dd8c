"""Dequantising: numbers y = (x + u) / L in [0, 1] of whole levels x, with u in [0, 1) and the density that it has.

    log P(x) >= E_u log p(y) - d log L - log q(u | x)

with u uniform (Uria et al. 2013), or drawn by a flow q of its own (Ho et al. 2019, arXiv 1902.00275, section 3.1).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.models import bijectors
from jaxdiff.models.bijectors import Bijector
from jaxdiff.models.flow import FlowConfig
from jaxdiff.objectives import likelihood
from jaxdiff.typing import Key, Params


def noise(net: FlowConfig, shape: tuple[int, ...]) -> Bijector:
    """Returns the flow from normal numbers to u, given the picture: two affine couplings and a sigmoid."""
    net = dataclasses.replace(net, family="realnvp")
    parts = [(f"coupling_{i}", net.checkerboard(shape, i)) for i in range(2)]
    return bijectors.chain([*parts, ("sigmoid", bijectors.swapped(bijectors.logit(0.0)))])


def seen(x: Int[Array, "b h w c"], levels: int, cond: Any) -> Float[Array, "b h w e"]:
    """Returns that flow's condition: the picture, and the other conditions, cond [b 1 1 e]."""
    levels_seen = likelihood.unit(x, levels)
    if cond is None:
        return levels_seen
    return jnp.concatenate([levels_seen, jnp.broadcast_to(cond, (*x.shape[:3], cond.shape[-1]))], -1)


def draw(
    net: FlowConfig, params: Params | None, x: Int[Array, "b h w c"], levels: int, cond: Any, keys: Key
) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
    """Returns y and log q(u | x).

    Args:
      net: the numbers of the couplings.
      params: parameters of `noise`; None: u is uniform.
      x: the levels.
      levels: L.
      cond: see `seen`.
      keys: one for each picture.
    """
    shape = x.shape[1:]
    if params is None:
        u, log_q = jax.vmap(lambda key: jax.random.uniform(key, shape))(keys), jnp.zeros(len(x))
    else:
        normal = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        u, det = noise(net, shape).forward(params, normal, seen(x, levels, cond))
        log_q = bijectors.log_normal(normal.reshape(len(x), -1)) - det
    return (x + u) / levels, log_q
