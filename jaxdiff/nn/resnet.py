"""The residual block of DDPM and everything after it, and the two changes of resolution."""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdiff.nn.conv import Conv, conv, direct_convolutions
from jaxdiff.nn.norm import ACTIVATIONS, normed
from jaxdiff.nn.target import by_platform
from jaxdiff.typing import Key


class ResnetBlock(nn.Module):
    """norm, activation, conv, + time, norm, activation, dropout, conv, + input.

    Attributes:
      features: output channels.
      groups: groups of the normalisation.
      eps: epsilon of the normalisation.
      scale_shift: time scales and shifts after the second norm (ADM) instead of being added before it (DDPM).
      dropout: rate, where keys are given.
      rescale: the sum is divided by this.
      resample: `up` or `down` changes the resolution inside the block, between first activation and convolution (ADM).
      act: the activation, `silu` or `gelu`; bare_time: time is projected without it.
    """

    features: int
    groups: int = 32
    eps: float = 1e-5
    scale_shift: bool = False
    dropout: float = 0.0
    rescale: float = 1.0
    resample: str | None = None
    dtype: str = "float32"
    act: str = "silu"
    bare_time: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], emb: Float[Array, "b e"] | None = None, keys: Key | None = None
    ) -> Float[Array, "b i j o"]:
        act = ACTIVATIONS[self.act]
        norm = lambda x, act, name: normed(x, self.groups, self.eps, act, self.dtype, name)
        y = norm(x, self.act, "norm1")
        if self.resample:
            change = {"up": double, "down": halve}[self.resample]
            x, y = change(x), change(y)
        y = Conv(self.features, dtype=self.dtype, name="conv1")(y)
        if emb is None:
            y = norm(y, self.act, "norm2")
        else:
            width = 2 * self.features if self.scale_shift else self.features
            time = nn.Dense(width, dtype=self.dtype, name="time")(emb if self.bare_time else act(emb))[:, None, None]
            if self.scale_shift:
                scale, shift = jnp.split(time, 2, -1)
                y = act(norm(y, None, "norm2") * (1 + scale) + shift)
            else:
                y = norm(y + time, self.act, "norm2")
        if self.dropout and keys is not None:
            y = dropout(y, fold(keys, "/".join(self.path)), self.dropout)
        y = Conv(self.features, zero=True, dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="shortcut")(x)
        return (x.astype(self.dtype) + y) / self.rescale if self.rescale != 1 else x.astype(self.dtype) + y


def fold(keys: Key, name: str) -> Key:
    """Returns keys [b] that belong to the block of that name."""
    return jax.vmap(lambda key: jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF))(keys)


def dropout(x: Float[Array, " b *s"], keys: Key, rate: float) -> Float[Array, " b *s"]:
    """Zeroes numbers with probability `rate` and scales the others up; example i draws from keys[i] alone."""
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def double(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """Repeats each pixel four times, twice as high and wide."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """Returns the mean of each 2x2 square."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


class Downsample(nn.Module):
    """Halves h and w with a strided convolution, padded on all sides, or below and to the right only (`after`).

    Odd sides are rounded up, or down (`after`).
    """

    features: int
    after: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        padding = ((0, 1), (0, 1)) if self.after else None
        return Conv(self.features, stride=2, padding=padding, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Doubles h and w, nearest neighbour, then a 3x3 convolution.

    Output row 2i sees the small rows i-1, i, i and row 2i+1 sees i, i, i+1, so all is sums of the nine taps' products
    with the small picture: 9 of them for each small position instead of 36. On a CPU it is done so.

    A `size` of 2h-1 or 2w-1, the side that a strided convolution made h or w of, leaves out the last of the doubled
    rows or columns. The convolution then sees zeros in its place, so it is done as it is written.
    """

    features: int
    bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], size: tuple[int, ...] | None = None) -> Float[Array, "b i j o"]:
        h, w, c = x.shape[1:]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, c, self.features))
        x = x.astype(self.dtype)
        size = size or (2 * h, 2 * w)
        kernel = kernel.astype(self.dtype)
        doubles = size == (2 * h, 2 * w) and not direct_convolutions.value
        as_written = lambda x, kernel: conv(double(x)[:, : size[0], : size[1]], kernel)
        y = by_platform(x, kernel, cpu=_double_then_conv if doubles else None, default=as_written)
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)[None, None, None]
        return y


def _double_then_conv(x: Array, kernel: Array) -> Array:
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def columns(row: Array) -> Array:  # one product for its three taps
        products = jnp.matmul(x, jnp.concatenate(list(row), -1), preferred_element_type=dtype)
        return _interleave(*jnp.split(products, 3, -1), axis=2)

    return _interleave(*lax.map(columns, kernel), axis=1).astype(x.dtype)


def _interleave(before: Array, here: Array, after: Array, *, axis: int) -> Array:
    """Interleaves two sums: at 2i before[i-1] + here[i] + after[i], at 2i+1 before[i] + here[i] + after[i+1]."""

    def shift(y: Array, by: int) -> Array:
        return lax.pad(y, jnp.zeros((), y.dtype), [(by * (i == axis), -by * (i == axis), 0) for i in range(y.ndim)])

    pair = jnp.stack([shift(before, 1) + here + after, before + here + shift(after, -1)], axis + 1)
    return pair.reshape(*here.shape[:axis], -1, *here.shape[axis + 1 :])
