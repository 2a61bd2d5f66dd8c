"""Generators of GANs: noise to pictures, by DCGAN's transposed convolutions or by residual blocks.

Where the originals normalise over the batch, this normalises each picture by itself (group norm), so that a picture
does not depend on the others, nor on how a batch is split over devices.

Sources: Radford et al. 2016, arXiv 1511.06434; Miyato et al. 2018, arXiv 1802.05957, appendix B.4.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.models.config import NetConfig
from jaxdiff.models.critic import check_halvings
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.norm import GroupNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig(NetConfig):
    """The numbers of a generator.

    Attributes:
      family: family of the layers.
      width: channels of the last layer but one; each earlier one doubles them, up to eight times.
      halvings: how often the first layer's resolution doubles.
      noise: numbers that a picture is made of.
      groups: groups of the normalisation.
      dtype: dtype of the computation; pictures are float32.
    """

    family: Literal["dcgan", "resnet"] = "dcgan"
    width: int = 64
    halvings: int = 3
    noise: int = 128
    groups: int = 8

    def build(self) -> nn.Module:
        """Makes the network of pictures of 32x32 in three channels."""
        return Generator(self, (32, 32, 3))

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures that cannot be doubled to."""
        check_halvings("generator", self, *sides)
        for field in ("noise", "groups"):
            if getattr(self, field) < 1:
                raise ValueError(f"generator: {field} is {getattr(self, field)}: expected 1 or more")
        if self.width % self.groups:
            raise ValueError(f"generator: width {self.width} does not divide by groups {self.groups}")


Config = GeneratorConfig


class Generator(nn.Module):
    """The network of a `GeneratorConfig`: noise [b n] to pictures in [-1, 1]."""

    config: GeneratorConfig
    shape: tuple[int, ...]
    classes: int = 0

    @nn.compact
    def __call__(self, z: Float[Array, "b n"], label: Any = None) -> Float[Array, "b h w c"]:
        net, (h, w, c) = self.config, self.shape
        if self.classes:
            classes = nn.Embed(self.classes, net.noise, name="classes")(label)
            z = jnp.concatenate([z, classes], -1)
        least = (h >> net.halvings, w >> net.halvings)
        widths = [net.width * min(2**i, 8) for i in range(net.halvings, -1, -1)]
        x = nn.Dense(least[0] * least[1] * widths[0], dtype=net.dtype, name="dense")(z)
        x = x.reshape(-1, *least, widths[0])
        double = lambda x: jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
        norm = lambda x, name: jax.nn.relu(GroupNorm(net.groups, dtype=net.dtype, name=name)(x))
        for i, width in enumerate(widths[1:]):
            y = norm(x, f"norm_{i}")
            if net.family == "dcgan":
                x = nn.ConvTranspose(width, (4, 4), (2, 2), dtype=net.dtype, name=f"conv_{i}")(y)
                continue
            y = norm(Conv(width, dtype=net.dtype, name=f"conv1_{i}")(double(y)), f"norm_mid_{i}")
            skip = Conv(width, 1, dtype=net.dtype, name=f"skip_{i}")(double(x))
            x = Conv(width, dtype=net.dtype, name=f"conv2_{i}")(y) + skip
        x = Conv(c, dtype=net.dtype, name="conv_out")(norm(x, "norm_out"))
        return jnp.tanh(x).astype(jnp.float32)
