"""A network of points: dense layers that see a point of a torus or a sphere, and how far it walked.

It says the score times the deviation, sqrt(v) s(x, v), whose size does not depend on v. Angles are seen as waves, so
that what it says is the same on both sides of a seam.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.nn.embedding import sinusoidal


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointsConfig(NetConfig):
    """The numbers of a network of points.

    Attributes:
      width: units of each layer.
      layers: hidden layers.
      waves: waves of each angle, of once to so many times around.
    """

    width: int = 128
    layers: int = 3
    waves: int = 4

    def build(self) -> nn.Module:
        """Makes the network of points in three numbers."""
        return Points(self)

    def check(self, *sides: int) -> None:
        """Refuses numbers that make no network."""
        check_dtype("points", self.dtype)
        for name in ("width", "layers", "waves"):
            if getattr(self, name) < 1:
                raise ValueError(f"points: {name} is {getattr(self, name)}: expected 1 or more")


Config = PointsConfig


class Points(nn.Module):
    """The network of a `PointsConfig`; of `angles`, points are numbers that come back after 2 pi."""

    config: PointsConfig
    angles: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], v: Float[Array, " b"]) -> Float[Array, "b d"]:
        net, seen = self.config, x
        if self.angles:
            around = (x[..., None] * jnp.arange(1.0, net.waves + 1)[None, None]).reshape(len(x), -1)
            seen = jnp.concatenate([jnp.sin(around), jnp.cos(around)], -1)
        dense: Any = lambda units, name: nn.Dense(units, dtype=net.dtype, name=name)
        of_time = dense(net.width, "time")(sinusoidal(100 * jnp.log(v), 32))
        h = dense(net.width, "in")(seen.astype(net.dtype)) + of_time
        for i in range(net.layers):
            h = h + dense(net.width, f"layer_{i}")(jax.nn.silu(h))
        y = dense(x.shape[-1], "out")(jax.nn.silu(h)).astype(jnp.float32)
        return y / jnp.sqrt(v)[:, None]
