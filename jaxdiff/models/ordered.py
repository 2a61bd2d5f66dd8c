"""Networks whose outputs for a part of a picture see the parts before it alone, in a fixed order.

A picture is `groups` parts a pixel: of a network for the levels of each channel, a channel each; of one for whole
pixels, one. As a module: (x [b h w c] in [-1, 1], label [b] or None) -> [b h w (groups outputs)], where the outputs of
part i see x in the parts before i alone. What of it is drawn, `Pick` says.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.models.config import NetConfig
from jaxdiff.typing import Key, Params

Pick = Callable[[Key, Array], Array]
"""(key, outputs of a part [o]) -> its values [c / groups] in [-1, 1]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderedConfig(NetConfig):
    """The numbers of such a network."""

    def build(self) -> nn.Module:
        """Makes the network of 256 levels in three channels."""
        return self.make((32, 32, 3), 3, 256, 0)

    @abc.abstractmethod
    def make(self, shape: tuple[int, ...], groups: int, outputs: int, classes: int) -> nn.Module:
        """Makes the network for pictures of shape (h, w, c), of `classes` where there are any."""

    @abc.abstractmethod
    def sample(
        self, module: Any, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick
    ) -> Float[Array, "b h w c"]:
        """Draws a picture from each of keys [b], part i from fold_in(key, i)."""


def draw(
    module: Any, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick, order: np.ndarray
) -> Float[Array, "b h w c"]:
    """Draws pictures by one call of the whole network a part, in `order`: so its time is the square of their size."""
    (h, w, c), groups = shape, module.groups
    width = c // groups

    def step(x: Array, at: Array) -> tuple[Array, None]:
        out = module.apply({"params": params}, x.reshape(-1, h, w, c), label)
        out = out.reshape(len(x), h * w * groups, -1)[:, at]
        value = jax.vmap(lambda key, out: pick(jax.random.fold_in(key, at), out))(keys, out)
        return jax.lax.dynamic_update_slice(x, value.astype(x.dtype), (0, at * width)), None

    x, _ = jax.lax.scan(step, jnp.zeros((keys.shape[0], h * w * c)), jnp.asarray(order))
    return x.reshape(-1, h, w, c)
