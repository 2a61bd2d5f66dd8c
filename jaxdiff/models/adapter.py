"""T2I-adapter: turns a picture (sketch, depth, colours) into features that a U-Net adds on its way down.

    features = adapter(hint),    y = unet(x_t, t, cond) with cond.features = features

The features do not depend on x_t or t: they are made once for a picture, and may be scaled.

Source: Mou et al. 2023, arXiv 2302.08453, section 3.3.
"""

import dataclasses

import einops
import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxdiff.nn.conv import Conv
from jaxdiff.nn.resnet import halve


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The numbers of an adapter.

    Attributes:
      in_channels: channels of the hint.
      channels: width of each feature.
      layers: residual blocks for each.
      factor: the hint is cut into factor x factor squares first.
      halved: the features before which the resolution halves.
      dtype: dtype of the computation.
    """

    in_channels: int = 3
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    factor: int = 8
    halved: tuple[int, ...] = (1, 2, 3)
    dtype: str = "float32"

    @property
    def unit(self) -> int:
        """Sides of hints are multiples of it."""
        return self.factor * 2 ** len(self.halved)


class Adapter(nn.Module):
    """The network of an `AdapterConfig`: a hint in [0, 1] -> one feature for each level of the U-Net."""

    config: AdapterConfig

    @nn.compact
    def __call__(self, hint: Float[Array, "b i j d"]) -> tuple[Array, ...]:
        net = self.config
        if hint.shape[1] % net.unit or hint.shape[2] % net.unit:
            raise ValueError(
                f"T2I-adapter: the hint is {hint.shape[1]}x{hint.shape[2]}, both sides must be multiples of {net.unit}"
            )
        x = einops.rearrange(hint, "b (h f) (w g) c -> b h w (c f g)", f=net.factor, g=net.factor)
        x = Conv(net.channels[0], dtype=net.dtype, name="conv_in")(x)
        features = []
        for i, width in enumerate(net.channels):
            x = halve(x) if i in net.halved else x
            if width != x.shape[-1]:
                x = Conv(width, 1, dtype=net.dtype, name=f"level_{i}_in")(x)
            for j in range(net.layers):
                y = jax.nn.relu(Conv(width, dtype=net.dtype, name=f"level_{i}_{j}_conv1")(x))
                x = x + Conv(width, 1, dtype=net.dtype, name=f"level_{i}_{j}_conv2")(y)
            features.append(x)
        return tuple(features)
