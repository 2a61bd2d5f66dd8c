"""The transformer block that works on a picture's positions (Stable Diffusion), and its feed-forward part."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxdiff.nn.attention import Attention, attention
from jaxdiff.nn.norm import GroupNorm
from jaxdiff.nn.target import by_platform

_BIG = 2**20  # numbers in the input from which, on a CPU, the feed-forward part goes
_ROWS = 512  # positions at a time


class GegluMlp(nn.Module):
    """fc2(a gelu(g)) with [a, g] = fc1(x). Source: Shazeer 2020, arXiv 2002.05202.

    On a CPU big inputs go through `_ROWS` positions at a time: what lies between fc1 and fc2 then stays in the caches.
    """

    ratio: int = 4
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        width = x.shape[-1]
        weights = [
            leaf.astype(self.dtype)
            for features, inputs, name in ((2 * self.ratio * width, width, "fc1"), (width, self.ratio * width, "fc2"))
            for leaf in _Affine(features, name=name)(inputs)
        ]
        big = x.size >= _BIG and x.size // width % _ROWS == 0
        return by_platform(x.astype(self.dtype), *weights, cpu=_in_rows if big else None, default=_geglu)


class _Affine(nn.Module):
    """The kernel [c o] and bias [o] of a dense layer, for functions that use them in a form of their own."""

    features: int

    @nn.compact
    def __call__(self, inputs: int) -> tuple[Array, Array]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


def _geglu(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> Array:
    row = (1,) * (x.ndim - 1) + (-1,)
    a, gate = jnp.split(x @ w1 + b1.reshape(row), 2, -1)
    return (a * jax.nn.gelu(gate, approximate=False)) @ w2 + b2.reshape(row)


def _in_rows(x: Array, *weights: Array) -> Array:
    return lax.map(lambda rows: _geglu(rows, *weights), x.reshape(-1, _ROWS, x.shape[-1])).reshape(x.shape)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to `context` (to itself where there is none), GEGLU; each added to its input."""

    heads: int
    head_dim: int
    self_attends_context: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        context: Float[Array, "b m e"] | None = None,
        mask: Bool[Array, "b m"] | None = None,
        picture: Float[Array, "b p f"] | None = None,
        picture_weight: Float[Array, " b"] | None = None,
    ) -> Float[Array, "b n c"]:
        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name=name)

        def attend(name: str) -> Attention:
            return Attention(self.heads, self.head_dim, dtype=self.dtype, name=name)

        first = (context, mask) if self.self_attends_context else ()
        x = x + attend("attn1")(norm("norm1")(x), *first)
        x = x + attend("attn2")(norm("norm2")(x), context, mask, picture=picture, picture_weight=picture_weight)
        return x + GegluMlp(dtype=self.dtype, name="ff")(norm("norm3")(x))


class SpatialTransformer(nn.Module):
    """norm, project in, `depth` transformer blocks over the positions, project out, + input.

    The projections are dense layers; a checkpoint's 1x1 convolutions (Stable Diffusion 1) are the same products.
    """

    heads: int
    head_dim: int
    depth: int = 1
    groups: int = 32
    self_attends_context: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        context: Float[Array, "b m e"] | None = None,
        mask: Bool[Array, "b m"] | None = None,
        picture: Float[Array, "b p f"] | None = None,
        picture_weight: Float[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        y = GroupNorm(self.groups, 1e-6, dtype=self.dtype, name="norm")(x).reshape(b, h * w, c)
        y = nn.Dense(self.heads * self.head_dim, dtype=self.dtype, name="proj_in")(y)
        for i in range(self.depth):
            block = TransformerBlock(
                self.heads, self.head_dim, self.self_attends_context, dtype=self.dtype, name=f"block_{i}"
            )
            y = block(y, context, mask, picture, picture_weight)
        y = nn.Dense(c, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="proj_out")(y)
        return x + y.reshape(b, h, w, c)


class AttentionBlock(nn.Module):
    """norm, self-attention over the positions, + input (DDPM and the autoencoders)."""

    heads: int = 1
    groups: int = 32
    eps: float = 1e-5
    rescale: float = 1.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        y = GroupNorm(self.groups, self.eps, dtype=self.dtype, name="norm")(x).reshape(b, h * w, c)
        y = Attention(self.heads, c // self.heads, bias=True, dtype=self.dtype, name="attn")(y)
        return (x + y.reshape(b, h, w, c)) / self.rescale if self.rescale != 1 else x + y.reshape(b, h, w, c)


class JointAttention(nn.Module):
    """One softmax over the context's keys and values and, unless `context_only`, the picture's own beside them.

    Source: Nichol et al. 2021, arXiv 2112.10741 (GLIDE), section 4.1.
    """

    heads: int
    context_only: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], context: Float[Array, "b m e"], mask: Bool[Array, "b m"] | None = None
    ) -> Float[Array, "b n c"]:
        b, n, c = x.shape

        def heads(name: str, y: Array) -> Array:
            return nn.Dense(c, dtype=self.dtype, name=name)(y).reshape(b, -1, self.heads, c // self.heads)

        q, k, v = heads("q", x), heads("k_context", context), heads("v_context", context)
        if not self.context_only:
            k, v = jnp.concatenate([k, heads("k", x)], 1), jnp.concatenate([v, heads("v", x)], 1)
            mask = None if mask is None else jnp.pad(mask, ((0, 0), (0, n)), constant_values=True)
        return nn.Dense(c, dtype=self.dtype, name="out")(attention(q, k, v, mask=mask).reshape(b, n, c))


class JointAttentionBlock(nn.Module):
    """norm, `JointAttention`, + input; with `context_norm` the context goes through a group norm of 32 groups first."""

    heads: int
    groups: int = 32
    context_only: bool = False
    context_norm: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], context: Float[Array, "b m e"], mask: Bool[Array, "b m"] | None = None
    ) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        if self.context_norm:
            context = GroupNorm(dtype=self.dtype, name="norm_context")(context)
        y = GroupNorm(self.groups, dtype=self.dtype, name="norm")(x).reshape(b, h * w, c)
        y = JointAttention(self.heads, self.context_only, self.dtype, name="attn")(y, context, mask)
        return x + y.reshape(b, h, w, c)
