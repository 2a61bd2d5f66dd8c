"""The discrete VAE of DALL-E: pictures to logits of codes, and codes, or weights over them, to distributions of pixels.

Residual blocks of four convolutions, whose branch is weighted by 1 / (blocks of the encoder)^2, so that training begins
near the skip connections; max-pooling halves, nearest neighbours double. Logits and outputs are float32.

Source: Ramesh et al. 2021, arXiv 2102.12092, appendix A.1.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.resnet import double
from jaxdiff.objectives import discrete


@dataclasses.dataclass(frozen=True, kw_only=True)
class DVAEConfig(NetConfig):
    """The numbers of a discrete VAE.

    Attributes:
      channels: width of each level, from the picture inwards; each but the last halves the resolution.
      layers: residual blocks a level.
      codes: K, codes at each position.
      embedding: width of what the decoder makes of a code first.
      dtype: dtype of the computation.
    """

    channels: tuple[int, ...] = (256, 512, 1024, 2048)
    layers: int = 2
    codes: int = 8192
    embedding: int = 128

    # an autoencoder as others see it: its latents are the logits
    in_channels = 3
    out_channels = 3
    scale = 1.0
    shift = 0.0

    @property
    def unit(self) -> int:
        """Returns picture pixels along a side for each code."""
        return 2 ** (len(self.channels) - 1)

    @property
    def latent_channels(self) -> int:
        """Returns the channels of the logits."""
        return self.codes

    def build(self) -> nn.Module:
        """Makes the network."""
        return DiscreteVAE(self)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures with these sides."""
        check_dtype("autoencoder_dvae", self.dtype)
        if not self.channels or min(self.channels) < 4:
            raise ValueError(f"autoencoder_dvae: channels is {self.channels}: expected a width of at least 4 a level")
        for name, least in (("layers", 1), ("codes", 2), ("embedding", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"autoencoder_dvae: {name} is {getattr(self, name)}: expected {least} or more")
        if any(side % self.unit for side in sides):
            raise ValueError(
                f"autoencoder_dvae: a picture of {'x'.join(map(str, sides))} does not halve {len(self.channels) - 1} "
                f"times: both sides must be multiples of {self.unit}"
            )


Config = DVAEConfig


class Block(nn.Module):
    """Four convolutions after relus, weighted and added to the input; kernels have sides of `sizes`."""

    features: int
    weight: float
    sizes: tuple[int, ...]
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        y = x
        for i, size in enumerate(self.sizes):
            width = self.features if i == len(self.sizes) - 1 else self.features // 4
            y = Conv(width, size, dtype=self.dtype, name=f"conv_{i}")(jax.nn.relu(y))
        skip = x if x.shape[-1] == self.features else Conv(self.features, 1, dtype=self.dtype, name="skip")(x)
        return skip + self.weight * y


class Half(nn.Module):
    """The encoder, or the decoder: levels of blocks between a first and a last convolution."""

    net: DVAEConfig
    decodes: bool
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        net, levels = self.net, len(self.net.channels)
        first, side, sizes = (net.embedding, 1, (1, 3, 3, 3)) if self.decodes else (net.channels[0], 7, (3, 3, 3, 1))
        x = Conv(first, side, dtype=net.dtype, name="conv_in")(x)
        for i, width in enumerate(reversed(net.channels) if self.decodes else net.channels):
            for j in range(net.layers):
                weight = 1 / (levels * net.layers) ** 2
                x = Block(width, weight, sizes, net.dtype, name=f"level_{i}_block_{j}")(x)
            if i < levels - 1:
                x = double(x) if self.decodes else nn.max_pool(x, (2, 2), (2, 2))
        return Conv(self.features, 1, dtype=net.dtype, name="conv_out")(jax.nn.relu(x)).astype(jnp.float32)


class DiscreteVAE(nn.Module):
    """The network of a `DVAEConfig`; call a method by `apply(..., method="encode")`."""

    config: DVAEConfig

    def setup(self) -> None:
        self.encoder = Half(self.config, False, self.config.codes)
        self.decoder = Half(self.config, True, 6)

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Returns pictures in [-1, 1] after both, by the likeliest codes."""
        return self.decode(self.encode(x))

    def encode(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b i j k"]:
        """Returns the logits of q(z | x) for pictures in [-1, 1]."""
        return self.encoder(discrete.inside(x))

    def pixels(self, z: Float[Array, "b i j k"]) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 3"]]:
        """Returns location and log of the scale of each value, for weights z over the codes."""
        m, log_b = jnp.split(self.decoder(z), 2, -1)
        return m, log_b

    def decode(self, z: Float[Array, "b i j k"]) -> Float[Array, "b h w 3"]:
        """Returns the pictures, in [-1, 1], of the likeliest codes of logits z."""
        return self.picture(z.argmax(-1))

    def index(self, x: Float[Array, "b h w 3"]) -> Int[Array, "b i j"]:
        """Returns the likeliest codes of pictures in [-1, 1]."""
        return self.encode(x).argmax(-1)

    def picture(self, index: Int[Array, "b i j"]) -> Float[Array, "b h w 3"]:
        """Returns the pictures of codes."""
        m, _ = self.pixels(jax.nn.one_hot(index, self.config.codes))
        return discrete.outside(jax.nn.sigmoid(m))
