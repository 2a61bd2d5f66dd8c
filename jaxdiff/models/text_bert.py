"""The text encoder of latent diffusion's text-to-image model: BERT's words, and a transformer trained with its U-Net.

Blocks of self-attention without biases and a GELU layer, each after a norm and added to its input. Padding is looked at
as words are.

Source: Rombach et al. 2022, arXiv 2112.10752, section 4.3.1, and its released code.
"""

import dataclasses

import flax.linen as nn
from jaxtyping import Array, Float, Int

from jaxdiff.nn.attention import Attention
from jaxdiff.nn.norm import gelu


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The numbers of the encoder; the defaults are the published ones.

    Attributes:
      vocabulary: token ids it knows.
      length: tokens of a text, start and end included.
      width: width of a token's state.
      head_dim: width of each head; `heads` of them need not make `width`.
      mlp: width inside a block's feed-forward part.
      layers: blocks.
      heads: attention heads.
      dtype: dtype of the computation.
    """

    vocabulary: int = 30522
    length: int = 77
    width: int = 1280
    head_dim: int = 64
    mlp: int = 5120
    layers: int = 32
    heads: int = 8
    dtype: str = "float32"


class BertText(nn.Module):
    """The encoder of a `BertConfig`: tokens [b l] -> states [b l w]."""

    config: BertConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l w"]:
        net = self.config
        x = nn.Embed(net.vocabulary, net.width, dtype=net.dtype, name="token_embed")(tokens)
        positions = self.param("position_embed", nn.initializers.normal(0.02), (net.length, net.width))
        x = x + positions[None, : tokens.shape[1]].astype(x.dtype)
        for i in range(net.layers):
            x = BertBlock(net, name=f"block_{i}")(x)
        return _norm(net, "norm_out")(x)


class BertBlock(nn.Module):
    """Self-attention and the feed-forward part."""

    net: BertConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"]) -> Float[Array, "b l w"]:
        net = self.net
        x = x + Attention(net.heads, net.head_dim, dtype=net.dtype, name="attn")(_norm(net, "norm1")(x))
        y = nn.Dense(net.mlp, dtype=net.dtype, name="fc1")(_norm(net, "norm2")(x))
        return x + nn.Dense(net.width, dtype=net.dtype, name="fc2")(gelu(y))


def _norm(net: BertConfig, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=net.dtype, name=name)
