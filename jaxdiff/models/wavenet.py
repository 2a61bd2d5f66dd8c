"""WaveNet: a sound's level, given all levels before it, by causal convolutions whose reach doubles in each layer.

With * a convolution of the samples t and t - d, d the dilation of the layer, h the class, y the local condition,

    z = tanh(W_f * x + V_f h + U_f y) sigmoid(W_g * x + V_g h + U_g y),    x <- x + W_r z,    skip <- skip + W_s z

and the outputs are W_2 relu(W_1 relu(skip)). What goes in at t is the level before t, so that outputs see no more. What
holds for stretches of `hop` samples is repeated over them.

Drawn, each layer keeps its inputs of the last d samples in a ring: sample t reads place t mod d, which holds that of
t - d, and writes its own there. So a step is one sample through all layers, and the time is linear in the length.

Sources: van den Oord et al. 2016, arXiv 1609.03499, equations 2 to 4 and figure 4; kept activations as Le Paine et al.
2016, arXiv 1611.09482.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.typing import Key, Params

Pick = Callable[[Key, Array], Array]
"""(key, logits [levels]) -> level []."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveNetConfig(NetConfig):
    """The numbers of a WaveNet.

    Attributes:
      width: units of a layer.
      skip: units of what all layers add to.
      doublings: layers of a stack, of dilations 1, 2, 4 and so on.
      stacks: stacks of such layers.
      dtype: dtype of the computation; outputs are float32.
    """

    width: int = 32
    skip: int = 64
    doublings: int = 8
    stacks: int = 2

    def build(self) -> nn.Module:
        """Makes the network of 256 levels without conditions."""
        return WaveNet(self, 256)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other."""
        check_dtype("wavenet", self.dtype)
        for name in ("width", "skip", "doublings", "stacks"):
            if not 1 <= (value := getattr(self, name)) <= (16 if name == "doublings" else 2**16):
                raise ValueError(f"wavenet: {name} is {value}: expected 1 or more, and of doublings at most 16")

    @property
    def dilations(self) -> list[int]:
        """Returns the dilation of each layer."""
        return [2**i for _ in range(self.stacks) for i in range(self.doublings)]

    @property
    def reach(self) -> int:
        """Returns how many samples back an output sees."""
        return sum(self.dilations) + 1


Config = WaveNetConfig


class Layer(nn.Module):
    """One gated layer, of the inputs at t and at t - d."""

    config: WaveNetConfig

    @nn.compact
    def __call__(self, before: Float[Array, "b n c"], x: Float[Array, "b n c"], cond: Any) -> tuple[Array, Array]:
        net = self.config
        dense = lambda features, name, bias=True: nn.Dense(features, use_bias=bias, dtype=net.dtype, name=name)
        both = dense(2 * net.width, "now")(x) + dense(2 * net.width, "before", False)(before)
        for name, one in cond.items():
            both = both + dense(2 * net.width, name, False)(one)
        a, b = jnp.split(both, 2, -1)
        z = jnp.tanh(a) * jax.nn.sigmoid(b)
        return x + dense(net.width, "residual")(z), dense(net.skip, "skip")(z)


class WaveNet(nn.Module):
    """The network of a `WaveNetConfig`, for sounds of `levels`, of `classes` where there are any."""

    config: WaveNetConfig
    levels: int
    classes: int = 0

    def setup(self) -> None:
        net = self.config
        self.start = nn.Dense(net.width, dtype=net.dtype)
        self.layers = [Layer(net) for _ in net.dilations]
        self.mid, self.last = nn.Dense(net.skip, dtype=net.dtype), nn.Dense(self.levels, dtype=net.dtype)

    def __call__(self, x: Float[Array, "b n k"], label: Any = None, local: Any = None) -> Float[Array, "b n k"]:
        """Returns logits of each sample.

        Args:
          x: levels as ones among zeros.
          label: classes [b], of a network that knows some.
          local: the condition of each sample, [b n c] or None.
        """
        h = self.start(jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0))))
        cond = self._told(label, local)
        skip: Any = 0.0
        for layer, d in zip(self.layers, self.config.dilations, strict=True):
            before = jnp.pad(h, ((0, 0), (d, 0), (0, 0)))[:, : h.shape[1]]
            h, more = layer(before, h, cond)
            skip = skip + more
        return self._read(skip)

    def step(
        self, last: Float[Array, "b 1 k"], kept: list[Array], at: Any, label: Any, local: Any
    ) -> tuple[Array, list[Array]]:
        """Returns the logits [b k] of sample `at`, by the level before it, and what is kept [b d c] of each layer."""
        h, cond = self.start(last), self._told(label, local)
        after: list[Array] = []
        skip: Any = 0.0
        for layer, d, ring in zip(self.layers, self.config.dilations, kept, strict=True):
            before = jax.lax.dynamic_slice_in_dim(ring, at % d, 1, 1)
            after.append(jax.lax.dynamic_update_slice_in_dim(ring, h, at % d, 1))
            h, more = layer(before, h, cond)
            skip = skip + more
        return self._read(skip)[:, 0], after

    def _told(self, label: Any, local: Any) -> dict[str, Array]:
        cond = {"class": jax.nn.one_hot(label, self.classes)[:, None]} if self.classes else {}
        return cond if local is None else {**cond, "local": local}

    def _read(self, skip: Any) -> Array:
        return self.last(jax.nn.relu(self.mid(jax.nn.relu(skip)))).astype(jnp.float32)


def sample(
    module: WaveNet, params: Params, keys: Key, samples: int, pick: Pick, label: Any = None, local: Any = None
) -> Int[Array, "b n"]:
    """Draws sounds, one scan over their samples, sample t from fold_in(key, t).

    Args:
      module: the network.
      params: its parameters.
      keys: one for each sound.
      samples: samples of a sound.
      pick: draws a level.
      label: classes [b], or None.
      local: the condition of each sample, [b n c] or None.
    """
    net, b = module.config, keys.shape[0]
    apply: Any = lambda *args: module.apply({"params": params}, *args, method="step")

    def step(state: tuple[Array, Any], at: Array) -> tuple[Any, Array]:
        last, kept = state
        here = None if local is None else jax.lax.dynamic_slice_in_dim(local, at, 1, 1)
        logits, kept = apply(last, kept, at, label, here)
        level = jax.vmap(lambda key, row: pick(jax.random.fold_in(key, at), row))(keys, logits)
        return (jax.nn.one_hot(level, module.levels)[:, None], kept), level

    kept = [jnp.zeros((b, d, net.width), net.dtype) for d in net.dilations]
    start = jnp.zeros((b, 1, module.levels))
    _, levels = jax.lax.scan(step, (start, kept), jnp.arange(samples))
    return levels.swapaxes(0, 1)
