"""The autoencoder whose latents are vectors of a codebook (VQGAN), as latent diffusion uses it.

The diffusion model works on the encoder's output before it is quantised; decoding replaces each vector by the nearest
one of the codebook first. MoVQ's decoder is steered by the latents at each of its norms.

Sources: van den Oord et al. 2017, arXiv 1711.00937, section 3.1; Rombach et al. 2022, arXiv 2112.10752, section 3.1;
Zheng et al. 2022, arXiv 2209.09002 (MoVQ).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.models.autoencoder_kl import AutoencoderConfig, Decoder, Encoder
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.spatial import GROUPS


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQConfig(AutoencoderConfig):
    """The numbers of a VQ autoencoder: those of its encoder and decoder, whose quant_convs are always there, and these.

    Attributes:
      codes: vectors in the codebook.
      width: width of a vector.
      spatial: whether the latents steer the decoder's norms (MoVQ).
    """

    codes: int = 256
    width: int = 3
    spatial: bool = False

    def build(self) -> nn.Module:
        """Makes the network."""
        return AutoencoderVQ(self)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures with these sides."""
        super().check(*sides)
        if self.codes < 2 or self.width < 1:
            raise ValueError(
                f"autoencoder: codes is {self.codes} and width {self.width}: expected at least 2 vectors of 1 or more"
            )
        if self.spatial and (wrong := [width for width in self.channels if width % GROUPS]):
            raise ValueError(f"autoencoder: channels has {wrong[0]}: spatial norms have {GROUPS} groups")


Config = VQConfig


class AutoencoderVQ(nn.Module):
    """The network of a `VQConfig`; call `encode`, `quantize` or `decode` by `apply(..., method="decode")`."""

    config: VQConfig

    def setup(self) -> None:
        net = self.config
        self.encoder = Encoder(net, net.latent_channels)
        self.decoder = Decoder(net)
        self.quant_conv = Conv(self.config.width, 1, dtype=net.dtype)
        self.post_quant_conv = Conv(net.latent_channels, 1, dtype=net.dtype)
        bound = 1 / self.config.codes
        self.codebook = self.param(
            "codebook",
            lambda key: jax.random.uniform(key, (self.config.codes, self.config.width), minval=-bound, maxval=bound),
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """Returns the picture after both."""
        return self.decode(self.encode(x))

    def encode(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j z"]:
        """Returns the latents before they are quantised."""
        return self.quant_conv(self.encoder(x)).astype(jnp.float32)

    def quantize(self, z: Float[Array, "b i j z"]) -> tuple[Float[Array, "b i j z"], Int[Array, "b i j"]]:
        """Returns the nearest vector of the codebook at each position, and its number."""
        codes = self.codebook.astype(jnp.float32)
        # |z - e|^2 without the part that is the same for all e
        distance = (codes * codes).sum(-1)[None, None, None] - 2 * z @ codes.T
        index = jnp.argmin(distance, -1)
        return codes[index], index

    def decode(self, z: Float[Array, "b i j z"], quantized: bool = False) -> Float[Array, "b h w o"]:
        """Returns the picture of latents.

        `quantized`: they are vectors of the codebook already, or are to be left alone.
        """
        z = z if quantized else self.quantize(z)[0]
        steer = z if self.config.spatial else None
        return self.decoder(self.post_quant_conv(z), steer).astype(jnp.float32)

    def index(self, x: Float[Array, "b h w c"]) -> Int[Array, "b i j"]:
        """Returns the codes of pictures in [-1, 1]."""
        return self.quantize(self.encode(x))[1]

    def picture(self, index: Int[Array, "b i j"]) -> Float[Array, "b h w o"]:
        """Returns the pictures of codes."""
        return self.decode(self.codebook.astype(jnp.float32)[index], True)
