"""Turns CLIP's embedding of a picture, and text, into the vector or the tokens that steer a U-Net besides time."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdiff.nn.attention import attention
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.norm import silu


def _norm(dtype: str, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class AttentionPool(nn.Module):
    """The mean of tokens, plus a learned vector, attends to itself and to all of them; one vector comes out.

    Source: Radford et al. 2021, arXiv 2103.00020, section 2.3; without a projection at its end.
    """

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], mask: Bool[Array, "b n"] | None = None) -> Float[Array, "b c"]:
        b, n, width = x.shape
        if width % self.heads:
            raise ValueError(f"AttentionPool: {width} channels do not divide into {self.heads} heads")
        position = self.param("position", nn.initializers.normal(width**-0.5), (1, width))
        weights = jnp.ones((b, n, 1)) if mask is None else mask[..., None].astype(jnp.float32)
        mean = (x * weights).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
        first = mean.astype(x.dtype) + position.astype(x.dtype)[None]
        seen = None if mask is None else jnp.concatenate([jnp.ones((b, 1), bool), mask], 1)
        q, k, v = (
            nn.Dense(width, dtype=self.dtype, name=name)(y).reshape(b, -1, self.heads, width // self.heads)
            for name, y in (("q", first), *((name, jnp.concatenate([first, x], 1)) for name in ("k", "v")))
        )
        return attention(q, k, v, mask=seen).reshape(b, width)


class TextEmbedding(nn.Module):
    """Text states as one vector: norm, `AttentionPool`, projection, norm (Imagen's pooled text)."""

    features: int
    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], mask: Bool[Array, "b n"] | None = None) -> Float[Array, "b e"]:
        x = _norm(self.dtype, "norm1")(x)
        x = AttentionPool(self.heads, self.dtype, name="pool")(x, mask)
        return _norm(self.dtype, "norm2")(nn.Dense(self.features, dtype=self.dtype, name="proj")(x))


class Projected(nn.Module):
    """A vector through a dense layer, and its norm."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b e"]:
        return _norm(self.dtype, "norm")(nn.Dense(self.features, dtype=self.dtype, name="proj")(x))


class EmbedTokens(nn.Module):
    """`count` tokens of a vector: one dense layer, and with `norm` a norm of each."""

    count: int
    features: int
    norm: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b {self.count} e"]:
        y = nn.Dense(self.count * self.features, dtype=self.dtype, name="tokens")(x)
        y = y.reshape(len(x), self.count, self.features)
        return _norm(self.dtype, "norm")(y) if self.norm else y


class HintChannels(nn.Module):
    """Four channels of an eighth of the side, of a picture that steers (Kandinsky's depth map)."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j 4"]:
        for n, (width, stride) in enumerate(((16, 1), (16, 1), (32, 2), (32, 1), (96, 2), (96, 1), (256, 2))):
            x = silu(Conv(width, stride=stride, dtype=self.dtype, name=f"conv_{n}")(x))
        return Conv(4, dtype=self.dtype, name="conv_out")(x)
