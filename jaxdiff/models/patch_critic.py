"""The patch critic: convolutions that halve the image, and one logit for each patch that is left.

Where the original normalises over the batch this normalises each image by itself (group norm), so that an image's logit
does not depend on the others, nor on how a batch is split over devices.

Source: Isola et al. 2017, arXiv 1611.07004, section 3.2.2; sizes as in Rombach et al. 2022, arXiv 2112.10752.
"""

import dataclasses

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.norm import GroupNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchCriticConfig(NetConfig):
    """The numbers of a patch critic.

    Attributes:
      width: channels of the first layer; each further one doubles them, up to eight times.
      layers: convolutions that halve the resolution.
      groups: groups of the normalisation.
      dtype: dtype of the computation; logits are float32.
    """

    width: int = 64
    layers: int = 3
    groups: int = 16

    def build(self) -> nn.Module:
        """Makes the network."""
        return PatchCritic(self)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or images that end before the layers do."""
        for name in ("width", "layers", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"critic: {name} is {getattr(self, name)}: expected 1 or more")
        check_dtype("critic", self.dtype)
        if 2 * self.width % self.groups:
            raise ValueError(f"critic: width {self.width}, doubled, does not divide by groups {self.groups}")
        if sides and min(sides) < (least := 4 * 2**self.layers):
            raise ValueError(
                f"critic: an image of {'x'.join(map(str, sides))} is too small for {self.layers} layers: expected "
                f"sides of at least {least}"
            )


Config = PatchCriticConfig


class PatchCritic(nn.Module):
    """The network of a `PatchCriticConfig`: images in [-1, 1] to logits, high for real ones."""

    config: PatchCriticConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j 1"]:
        net = self.config
        around = ((1, 1), (1, 1))
        for i in range(net.layers + 1):
            width, stride = net.width * min(2**i, 8), 2 if i < net.layers else 1
            x = Conv(width, 4, stride, around, bias=i == 0, dtype=net.dtype, name=f"conv_{i}")(x)
            x = GroupNorm(net.groups, dtype=net.dtype, name=f"norm_{i}")(x) if i else x
            x = jax.nn.leaky_relu(x, 0.2)
        return Conv(1, 4, 1, around, dtype=net.dtype, name="conv_out")(x).astype("float32")
