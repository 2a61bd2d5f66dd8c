"""Normalisation that latents steer, position by position, and the blocks that use it (MoVQ's decoder).

    y = norm(x) scale(z) + shift(z),    z nearest to each position of x,

with a group norm of x, and 1x1 convolutions `scale` and `shift` of the latents z.

Source: Zheng et al. 2022, arXiv 2209.09002, section 3.2.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.nn.attention import Attention
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.norm import GroupNorm, silu

GROUPS = 32
"""Epsilon of this normalisation, whatever the model's others have."""
_EPS = 1e-6


class SpatialNorm(nn.Module):
    """The module docstring's equation."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], z: Float[Array, "b i j z"]) -> Float[Array, "b h w c"]:
        y = GroupNorm(GROUPS, _EPS, dtype=self.dtype, name="norm")(x)
        scale, shift = (Conv(x.shape[-1], 1, dtype=self.dtype, name=name)(z) for name in ("scale", "shift"))
        return y * _nearest(scale, x.shape) + _nearest(shift, x.shape)


def _nearest(z: Array, shape: tuple[int, ...]) -> Array:
    """Returns z in the size of x: each of its positions covers a rectangle."""
    b, i, j, c = z.shape
    h, w = shape[1:3]
    return jnp.broadcast_to(z[:, :, None, :, None], (b, i, h // i, j, w // j, c)).reshape(b, h, w, c)


class SpatialResnet(nn.Module):
    """The residual block without a time, whose norms latents steer."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], z: Float[Array, "b i j z"]) -> Float[Array, "b h w o"]:
        y = silu(SpatialNorm(self.dtype, name="norm1")(x, z))
        y = Conv(self.features, dtype=self.dtype, name="conv1")(y)
        y = silu(SpatialNorm(self.dtype, name="norm2")(y, z))
        y = Conv(self.features, zero=True, dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="shortcut")(x)
        return x.astype(self.dtype) + y


class SpatialAttention(nn.Module):
    """Self-attention over the positions after a norm that latents steer, + input."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], z: Float[Array, "b i j z"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        y = SpatialNorm(self.dtype, name="norm")(x, z).reshape(b, h * w, c)
        y = Attention(1, c, bias=True, dtype=self.dtype, name="attn")(y)
        return x + y.reshape(b, h, w, c)
