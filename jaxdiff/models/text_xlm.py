"""XLM-RoBERTa with a projection (multilingual CLIP): what tells Kandinsky 2.1's decoder about the prompt.

Blocks of self-attention and a feed-forward part, a norm after each is added to its input. The vector of a text is the
projected mean of the states that are not padding.

Sources: Conneau et al. 2020, arXiv 1911.02116; Carlsson et al. 2022, Cross-lingual and multilingual CLIP.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdiff.nn.attention import Attention
from jaxdiff.nn.norm import gelu

PAD = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class XlmConfig:
    """The numbers of the encoder; the defaults are those of Kandinsky 2.1.

    Attributes:
      vocabulary: token ids it knows; 1 is padding.
      length: tokens of a text, start and end included.
      positions: that have an embedding; the first two are of padding.
      types: types of tokens, of which the first is used.
      width: width of a token's state; mlp: inside a block's feed-forward part.
      layers: blocks.
      heads: attention heads.
      projection: width of the text's vector.
      eps: epsilon of the norms.
      dtype: dtype of the computation.
    """

    vocabulary: int = 250002
    length: int = 77
    positions: int = 514
    types: int = 1
    width: int = 1024
    mlp: int = 4096
    layers: int = 24
    heads: int = 16
    projection: int = 768
    eps: float = 1e-5
    dtype: str = "float32"


class XlmText(nn.Module):
    """The encoder of an `XlmConfig`: ids [b l] -> states [b l w], and the text's vector [b p]."""

    config: XlmConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> tuple[Float[Array, "b l w"], Float[Array, "b p"]]:
        net, seen = self.config, tokens != PAD
        zeros = nn.initializers.zeros
        place = jnp.cumsum(seen, 1) * seen + PAD
        x = nn.Embed(net.vocabulary, net.width, dtype=net.dtype, name="token_embed")(tokens)
        x = x + self.param("type_embed", zeros, (net.types, net.width)).astype(net.dtype)[None, :1]
        x = x + self.param("position_embed", zeros, (net.positions, net.width)).astype(net.dtype)[place]
        x = _norm(net, "norm_in")(x)
        for i in range(net.layers):
            x = XlmBlock(net, name=f"block_{i}")(x, seen)
        x = x.astype(jnp.float32)
        nn.Dense(net.width, dtype=net.dtype, name="pooler")(x[:, 0])  # published files have it; nothing reads it
        count = seen.astype(jnp.float32)[..., None]
        mean = (x * count).sum(1) / count.sum(1)
        return x, nn.Dense(net.projection, dtype=net.dtype, name="projection")(mean).astype(jnp.float32)


class XlmBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + fc2(gelu(fc1(x))))."""

    net: XlmConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"], seen: Bool[Array, "b l"]) -> Float[Array, "b l w"]:
        net = self.net
        y = Attention(net.heads, net.width // net.heads, bias=True, dtype=net.dtype, name="attn")(x, mask=seen)
        x = _norm(net, "norm1")(x + y)
        y = gelu(nn.Dense(net.mlp, dtype=net.dtype, name="fc1")(x))
        return _norm(net, "norm2")(x + nn.Dense(net.width, dtype=net.dtype, name="fc2")(y))


def _norm(net: XlmConfig, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=net.eps, use_fast_variance=False, dtype=net.dtype, name=name)
