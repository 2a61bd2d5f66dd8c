"""The autoencoder of latent diffusion: pictures in [-1, 1] to latents of an eighth of the side, and back.

The encoder gives a Gaussian for each latent; what a U-Net is trained on is its sample (or mean), shifted and scaled to
unit variance:

    latents = (z - shift) scale,    z ~ N(mean, exp(log_var)),

each one number, or one for each channel.

Source: Rombach et al. 2022, arXiv 2112.10752, section 3.1 and appendix G.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.norm import GroupNorm, silu
from jaxdiff.nn.resnet import Downsample, ResnetBlock, Upsample
from jaxdiff.nn.spatial import SpatialAttention, SpatialNorm, SpatialResnet
from jaxdiff.nn.transformer import AttentionBlock
from jaxdiff.typing import Key

_EPS = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(NetConfig):
    """The numbers of an autoencoder.

    Attributes:
      in_channels, out_channels: of the picture, read and made.
      channels: width of each level, from the picture inwards; each but the last halves the resolution.
      layers: residual blocks a level in the encoder (one more in the decoder).
      latent_channels: channels of a latent.
      groups: groups of the normalisation.
      mid_attention: whether the middle has an attention.
      attention: levels with an attention after each residual block, both ways.
      quant_conv, post_quant_conv: whether a 1x1 convolution follows the encoder, and goes before the decoder.
      scale, shift: see the module docstring.
      upcast: the weights were trained in float32 and overflow in float16: decode in float32 (bfloat16 does too).
      dtype: dtype of the computation; outputs are float32.
    """

    in_channels: int = 3
    out_channels: int = 3
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    latent_channels: int = 4
    groups: int = 32
    mid_attention: bool = True
    attention: tuple[int, ...] = ()
    quant_conv: bool = True
    post_quant_conv: bool = True
    scale: float | tuple[float, ...] = 0.18215
    shift: float | tuple[float, ...] = 0.0
    upcast: bool = True

    def build(self) -> nn.Module:
        """Makes the network."""
        return AutoencoderKL(self)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures with these sides."""
        for name in ("in_channels", "out_channels", "channels", "layers", "latent_channels", "groups"):
            value = getattr(self, name)
            if not value or min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ValueError(f"autoencoder: {name} is {value}: expected 1 or more")
        check_dtype("autoencoder", self.dtype)
        if wrong := [level for level in self.attention if not 0 <= level < len(self.channels)]:
            raise ValueError(f"autoencoder: attention has {wrong[0]}, and levels are 0 to {len(self.channels) - 1}")
        if not (np.isfinite(self.shift).all() and np.isfinite(self.scale).all() and np.all(self.scale)):
            raise ValueError(
                f"autoencoder: scale is {self.scale} and shift {self.shift}: expected numbers, scale not 0"
            )
        if wrong := [width for width in self.channels if width % self.groups]:
            raise ValueError(f"autoencoder: channels has {wrong[0]}, which does not divide by groups {self.groups}")
        if any(side % self.unit for side in sides):
            raise ValueError(
                f"autoencoder: a picture of {'x'.join(map(str, sides))} does not halve {len(self.channels) - 1} times: "
                f"both sides must be multiples of {self.unit}"
            )

    @property
    def unit(self) -> int:
        """Returns picture pixels along a side for each latent."""
        return 2 ** (len(self.channels) - 1)


Config = AutoencoderConfig


class AutoencoderKL(nn.Module):
    """The network of an `AutoencoderConfig`; call `encode` or `decode` by `apply(..., method="decode")`."""

    config: AutoencoderConfig

    def setup(self) -> None:
        net = self.config
        self.encoder = Encoder(net, 2 * net.latent_channels)
        self.decoder = Decoder(net)
        if net.quant_conv:
            self.quant_conv = Conv(2 * net.latent_channels, 1, dtype=net.dtype)
        if net.post_quant_conv:
            self.post_quant_conv = Conv(net.latent_channels, 1, dtype=net.dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """Returns the picture after both, through the mean."""
        return self.decode(self.encode(x)[0])

    def encode(self, x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b i j z"], Float[Array, "b i j z"]]:
        """Returns mean and log-variance of z, the latter within [-30, 20]."""
        moments = self.encoder(x)
        moments = self.quant_conv(moments) if self.config.quant_conv else moments
        mean, log_var = jnp.split(moments.astype(jnp.float32), 2, -1)
        return mean, jnp.clip(log_var, -30.0, 20.0)

    def decode(self, z: Float[Array, "b i j z"]) -> Float[Array, "b h w o"]:
        """Returns the picture of z (not of scaled latents: see `unscaled`)."""
        return self.decoder(self.post_quant_conv(z) if self.config.post_quant_conv else z).astype(jnp.float32)


def sample(mean: Float[Array, " b *s"], log_var: Float[Array, " b *s"], keys: Key) -> Float[Array, " b *s"]:
    """Draws one z a picture; keys [b]."""
    noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
    return mean + jnp.exp(0.5 * log_var) * noise


def scaled(net: Any, z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the latents a diffusion model sees; `net` is the config of any autoencoder."""
    return (z - _of_channels(net.shift, z)) * _of_channels(net.scale, z)


def unscaled(net: Any, latents: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the z that `decode` takes."""
    return latents / _of_channels(net.scale, latents) + _of_channels(net.shift, latents)


def _of_channels(value: float | tuple[float, ...], z: Array) -> float | Array:
    return jnp.array(value, z.dtype).reshape(*[1] * (z.ndim - 1), -1) if isinstance(value, tuple) else value


class Encoder(nn.Module):
    """Convolution, levels that halve the resolution, middle, norm, convolution to `features` channels."""

    net: AutoencoderConfig
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        net = self.net
        net.check(*x.shape[1:3])
        x = Conv(net.channels[0], dtype=net.dtype, name="conv_in")(x)
        for i in range(len(net.channels)):
            x = Stack(net, i, net.layers, "down" if i < len(net.channels) - 1 else "", name=f"down_{i}")(x)
        x = Middle(net, name="mid")(x)
        x = GroupNorm(net.groups, _EPS, silu=True, dtype=net.dtype, name="norm_out")(x)
        return Conv(self.features, dtype=net.dtype, name="conv_out")(x)


class Decoder(nn.Module):
    """Convolution, middle, levels that double the resolution, norm, convolution to a picture.

    With `steer`, latents, all norms are steered by them (`nn.spatial`).
    """

    net: AutoencoderConfig

    @nn.compact
    def __call__(
        self, z: Float[Array, "b i j z"], steer: Float[Array, "b i j s"] | None = None
    ) -> Float[Array, "b h w o"]:
        net, last = self.net, len(self.net.channels) - 1
        x = Conv(net.channels[-1], dtype=net.dtype, name="conv_in")(z)
        x = Middle(net, name="mid")(x, steer)
        for j in range(last + 1):
            x = Stack(net, last - j, net.layers + 1, "up" if j < last else "", name=f"up_{j}")(x, steer)
        if steer is None:
            x = GroupNorm(net.groups, _EPS, silu=True, dtype=net.dtype, name="norm_out")(x)
        else:
            x = silu(SpatialNorm(net.dtype, name="norm_out")(x, steer))
        return Conv(net.out_channels, dtype=net.dtype, name="conv_out")(x)


class Stack(nn.Module):
    """The residual blocks of one level, and what changes the resolution after them (`down`, `up` or nothing)."""

    net: AutoencoderConfig
    level: int
    blocks: int
    resample: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], steer: Array | None = None) -> Float[Array, "b i j o"]:
        net, width = self.net, self.net.channels[self.level]
        for j in range(self.blocks):
            x = _resnet(net, width, f"resnet_{j}", x, steer)
            if self.level in net.attention:
                x = _attend(net, f"attn_{j}", x, steer)
        if self.resample == "down":
            x = Downsample(width, after=True, dtype=net.dtype, name="downsample")(x)
        if self.resample == "up":
            x = Upsample(width, dtype=net.dtype, name="upsample")(x)
        return x


class Middle(nn.Module):
    """Two residual blocks, between them one attention over the positions."""

    net: AutoencoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], steer: Array | None = None) -> Float[Array, "b h w c"]:
        net = self.net
        x = _resnet(net, x.shape[-1], "resnet_0", x, steer)
        if net.mid_attention:
            x = _attend(net, "attn_0", x, steer)
        return _resnet(net, x.shape[-1], "resnet_1", x, steer)


def _resnet(net: AutoencoderConfig, width: int, name: str, x: Array, steer: Array | None) -> Array:
    """Applies a residual block, which belongs to the module that calls."""
    if steer is not None:
        return SpatialResnet(width, net.dtype, name=name)(x, steer)
    return ResnetBlock(width, net.groups, _EPS, dtype=net.dtype, name=name)(x)


def _attend(net: AutoencoderConfig, name: str, x: Array, steer: Array | None) -> Array:
    """Applies an attention over the positions, which belongs to the module that calls."""
    if steer is not None:
        return SpatialAttention(net.dtype, name=name)(x, steer)
    return AttentionBlock(1, net.groups, _EPS, dtype=net.dtype, name=name)(x)


def sliced(decode: Callable[[Array], Array], z: Float[Array, "b i j z"]) -> Float[Array, "b h w o"]:
    """Returns `decode` of one picture after another: a batch needs the memory of one."""
    return jax.lax.map(lambda one: decode(one[None])[0], z)


def tiled(
    decode: Callable[[Array], Array], z: Float[Array, "b i j z"], *, tile: int = 64, overlap: int = 16, factor: int = 8
) -> Float[Array, "b h w o"]:
    """Returns `decode` of square tiles, one after another, faded into each other where they overlap.

    Memory is that of one tile, so a picture of any size fits; each tile sees only itself in norms and attention, so
    the result is near that of the whole, not equal.

    Args:
      decode: from latents [b i j z] to pictures `factor` times as large.
      z: latents; a side of at most `tile` is not cut.
      tile: side of a tile, in latents.
      overlap: how much neighbours share at least; below `tile`.
      factor: picture pixels for each latent.

    Raises:
      ValueError: if `overlap` is not within 0 .. tile - 1.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"tiled: overlap={overlap} must be at least 0 and below tile={tile}")
    sizes = [min(tile, side) for side in z.shape[1:3]]
    starts = [_starts(side, size, overlap) for side, size in zip(z.shape[1:3], sizes, strict=True)]
    fades = [_fade(size * factor, overlap * factor) for size in sizes]
    weight = jnp.asarray(fades[0])[:, None] * jnp.asarray(fades[1])[None]
    corners = jnp.array([(i, j) for i in starts[0] for j in starts[1]])

    def one(corner: Array) -> Array:
        cut = jax.lax.dynamic_slice(z, (0, corner[0], corner[1], 0), (z.shape[0], *sizes, z.shape[3]))
        return decode(cut)

    shape = jax.eval_shape(one, corners[0]).shape
    total = jnp.zeros((shape[0], z.shape[1] * factor, z.shape[2] * factor, shape[3]))
    weights = jnp.zeros(total.shape[1:3])

    def add(sums: tuple[Array, Array], corner: Array) -> tuple[tuple[Array, Array], None]:
        total, weights = sums
        at = (jnp.zeros_like(corner[0]), corner[0] * factor, corner[1] * factor, jnp.zeros_like(corner[0]))
        old = jax.lax.dynamic_slice(total, at, shape)
        total = jax.lax.dynamic_update_slice(total, old + one(corner) * weight[None, :, :, None], at)
        old = jax.lax.dynamic_slice(weights, at[1:3], weight.shape)
        return (total, jax.lax.dynamic_update_slice(weights, old + weight, at[1:3])), None

    (total, weights), _ = jax.lax.scan(add, (total, weights), corners)
    return total / weights[None, :, :, None]


def _starts(side: int, size: int, overlap: int) -> list[int]:
    """Returns evenly spread positions of the fewest tiles that cover a side and overlap enough."""
    if side == size:
        return [0]
    count = 1 + math.ceil((side - size) / (size - overlap))
    return [round(n * (side - size) / (count - 1)) for n in range(count)]


def _fade(size: int, ramp: int) -> list[float]:
    """Returns 1 inside, falling to near 0 over `ramp` pixels at both ends."""
    return [min(1.0, (min(i, size - 1 - i) + 1) / (ramp + 1)) for i in range(size)]
