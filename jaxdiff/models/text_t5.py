"""T5's encoder: what tells Imagen's U-Nets about the prompt.

Blocks of self-attention and a feed-forward part, each after an RMS norm and added to its input. Attention knows no
positions but a learned bias for each head and bucket of distances, shared by all blocks, and is not scaled:

    softmax(q k' + bias) v,    y = x / sqrt(mean(x^2) + eps) g

Version 1.0 has one product with a ReLU; 1.1 a gated one, gelu(x W_0) * (x W_1). The states are added up and normalised
in float32 whatever the weights are: in float16 those of the largest models overflow.

Sources: Raffel et al. 2020, arXiv 1910.10683, section 2.1; Shazeer 2020, arXiv 2002.05202 (gates).
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """The numbers of a T5 encoder; the defaults are those of t5-v1_1-xxl, which DeepFloyd IF reads.

    Attributes:
      vocabulary: token ids it knows; 0 is padding.
      length: tokens of a text, the end included: what the U-Net was trained with, since T5 itself takes any number.
      width: width of a token's state.
      head_dim: width of each head; `heads` of them need not make `width`.
      mlp: width inside a block's feed-forward part; gated: whether that has a gate (1.1) or a ReLU (1.0).
      layers: blocks.
      heads: attention heads.
      buckets: buckets of distances, half of them for each direction; distance: from which all share one.
      eps: epsilon of the norms.
      dtype: dtype of the products; what is added and normalised is float32.
    """

    vocabulary: int = 32128
    length: int = 77
    width: int = 4096
    head_dim: int = 64
    mlp: int = 10240
    gated: bool = True
    layers: int = 24
    heads: int = 64
    buckets: int = 32
    distance: int = 128
    eps: float = 1e-6
    dtype: str = "float32"


class T5Encoder(nn.Module):
    """The encoder of a `T5Config`: (ids [b l], which of them count) -> states, in float32."""

    config: T5Config

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"], mask: Bool[Array, "b l"] | None = None) -> Float[Array, "b l w"]:
        """States of the tokens; `mask` is by default true where a token is not padding."""
        net = self.config
        mask = tokens != 0 if mask is None else mask
        x = nn.Embed(net.vocabulary, net.width, dtype=jnp.float32, name="token_embed")(tokens)
        places = nn.Embed(net.buckets, net.heads, dtype=jnp.float32, name="distance_embed")
        bias = places(jnp.asarray(buckets(tokens.shape[1], net.buckets, net.distance))).transpose(2, 0, 1)[None]
        bias = bias + jnp.where(mask, 0.0, jnp.finfo(jnp.float32).min / 2)[:, None, None]
        for i in range(net.layers):
            x = T5Block(net, name=f"block_{i}")(x, bias)
        return RmsNorm(net.eps, name="norm_out")(x)


class T5Block(nn.Module):
    """Attention with a bias on its scores [b h l l], and the feed-forward part."""

    net: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"], bias: Float[Array, "b h l l"]) -> Float[Array, "b l w"]:
        net = self.net
        x = x + T5Attention(net, name="attn")(RmsNorm(net.eps, name="norm1")(x), bias).astype(jnp.float32)
        return x + T5Mlp(net, name="mlp")(RmsNorm(net.eps, name="norm2")(x)).astype(jnp.float32)


class T5Attention(nn.Module):
    """softmax(q k' + bias) v between projections without biases, the softmax in float32."""

    net: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"], bias: Float[Array, "b h l l"]) -> Float[Array, "b l w"]:
        net = self.net

        def heads(name: str) -> Array:
            y = nn.Dense(net.heads * net.head_dim, use_bias=False, dtype=net.dtype, name=name)(x)
            return y.reshape(*x.shape[:2], net.heads, net.head_dim)

        scores = jnp.einsum("bqhd,bkhd->bhqk", heads("q"), heads("k"), preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores + bias, -1).astype(net.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, heads("v")).reshape(*x.shape[:2], -1)
        return nn.Dense(net.width, use_bias=False, dtype=net.dtype, name="out")(y)


class T5Mlp(nn.Module):
    """fc2(gelu(gate(x)) fc1(x)), or fc2(relu(fc1(x))); fc2 in float32 where float16 would overflow."""

    net: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"]) -> Float[Array, "b l w"]:
        net = self.net
        y = nn.Dense(net.mlp, use_bias=False, dtype=net.dtype, name="fc1")(x)
        if net.gated:
            gate = nn.Dense(net.mlp, use_bias=False, dtype=net.dtype, name="gate")(x)
            y = jax.nn.gelu(gate, approximate=True) * y
        else:
            y = jax.nn.relu(y)
        last = jnp.float32 if net.dtype == "float16" else net.dtype
        return nn.Dense(net.width, use_bias=False, dtype=last, name="fc2")(y)


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) times a scale, in float32. Source: Zhang and Sennrich 2019, arXiv 1910.07467."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*b w"]) -> Float[Array, "*b w"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + self.eps)
        return x * scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))


def buckets(length: int, count: int, distance: int) -> Int[np.ndarray, "l l"]:
    """Returns the bucket of each pair (query, key): exact for near ones, then logarithmic up to `distance`."""
    place = np.arange(length)
    apart = place[None] - place[:, None]
    half, far = count // 2, np.abs(apart)
    exact = half // 2
    with np.errstate(divide="ignore"):
        # in float32, as the published models were trained: some distances lie on a border
        rise = np.log(far.astype(np.float32) / np.float32(exact)) / np.float32(math.log(distance / exact))
    grown = exact + np.where(far > 0, rise * np.float32(half - exact), 0).astype(np.int64)
    return np.where(apart > 0, half, 0) + np.where(far < exact, far, np.minimum(grown, half - 1))
