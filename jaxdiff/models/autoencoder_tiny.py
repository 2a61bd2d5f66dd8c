"""The tiny autoencoder (TAESD): a small network that decodes Stable Diffusion's latents almost as well, for previews.

It works on the latents that the diffusion model sees, without scaling: convolutions and ReLU only.

Source: Bohan 2023, github.com/madebyollin/taesd.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.nn.conv import Conv
from jaxdiff.nn.resnet import Upsample


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """The numbers of a tiny autoencoder.

    Attributes:
      in_channels, out_channels: of the picture, read and made.
      encoder_channels, encoder_blocks: width and number of blocks of each level, from the picture inwards.
      decoder_channels, decoder_blocks: the same from the latent outwards.
      latent_channels: channels of a latent.
      scale, shift: as in the KL autoencoder; 1 and 0, since its latents are the diffusion model's.
      dtype: dtype of the computation. Outputs are float32.
    """

    in_channels: int = 3
    out_channels: int = 3
    encoder_channels: tuple[int, ...] = (64, 64, 64, 64)
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    latent_channels: int = 4
    scale: float = 1.0
    shift: float = 0.0
    dtype: str = "float32"


class AutoencoderTiny(nn.Module):
    """The network of a `TinyConfig`; call `encode` or `decode` by `apply(..., method="decode")`."""

    config: TinyConfig

    def setup(self) -> None:
        self.encoder = TinyEncoder(self.config)
        self.decoder = TinyDecoder(self.config)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """Returns the picture after both."""
        return self.decode(self.encode(x))

    def encode(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j z"]:
        """Returns the latents of a picture in [-1, 1]."""
        return self.encoder(x).astype(jnp.float32)

    def decode(self, z: Float[Array, "b i j z"]) -> Float[Array, "b h w o"]:
        """Returns the picture, about in [-1, 1]."""
        return self.decoder(z).astype(jnp.float32)


class TinyEncoder(nn.Module):
    """Levels of blocks, between them strided convolutions; layers are numbered as in the published files."""

    net: TinyConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j z"]:
        net, n = self.net, 0
        x = (x + 1) / 2
        for i, (width, blocks) in enumerate(zip(net.encoder_channels, net.encoder_blocks, strict=True)):
            x = Conv(width, stride=2 if i else 1, bias=not i, dtype=net.dtype, name=f"layer_{n}")(x)
            for j in range(blocks):
                x = TinyBlock(width, net.dtype, name=f"layer_{n + 1 + j}")(x)
            n += 1 + blocks
        return Conv(net.latent_channels, dtype=net.dtype, name=f"layer_{n}")(x)


class TinyDecoder(nn.Module):
    """Latents softly held within [-3, 3], levels of blocks, between them doubling and a convolution."""

    net: TinyConfig

    @nn.compact
    def __call__(self, z: Float[Array, "b i j z"]) -> Float[Array, "b h w o"]:
        net = self.net
        x = jnp.tanh(z / 3) * 3
        x = jax.nn.relu(Conv(net.decoder_channels[0], dtype=net.dtype, name="layer_0")(x))
        n = 2  # the activation and the doubling have numbers of their own
        for i, (width, blocks) in enumerate(zip(net.decoder_channels, net.decoder_blocks, strict=True)):
            for j in range(blocks):
                x = TinyBlock(width, net.dtype, name=f"layer_{n + j}")(x)
            n += blocks
            if i < len(net.decoder_channels) - 1:
                x = Upsample(width, bias=False, dtype=net.dtype, name=f"layer_{n + 1}")(x)
                n += 2
        return Conv(net.out_channels, dtype=net.dtype, name=f"layer_{n}")(x) * 2 - 1


class TinyBlock(nn.Module):
    """Three convolutions with ReLU between them, + input, ReLU."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        y = x
        for n in (0, 2, 4):
            y = Conv(self.features, dtype=self.dtype, name=f"conv_{n}")(jax.nn.relu(y) if n else y)
        return jax.nn.relu(x.astype(self.dtype) + y)
