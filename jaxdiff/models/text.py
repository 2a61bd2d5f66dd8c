"""The text encoder that is trained together with a U-Net, as in GLIDE: states for its attention, and one vector.

Ours looks at no padding and pools by the mean. The published GLIDE's fills a text up with learned vectors, one for each
place, which are looked at as tokens are; its vector is the last state, projected to the U-Net's time embedding.

Source: Nichol et al. 2021, arXiv 2112.10741, section 4.1.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdiff.models.config import check_dtype
from jaxdiff.nn.attention import Attention
from jaxdiff.nn.norm import gelu


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The numbers of a text encoder.

    Attributes:
      vocabulary: token ids it knows.
      length: tokens of a text, start and end included where the vocabulary has them.
      width: width of a token's state.
      layers: transformer blocks.
      heads: attention heads.
      pad: the id of padding; -1: one that no token has.
      filled: padding is a learned vector for each place, and the last state is the pooled one (GLIDE's own).
      projection: width that the pooled vector is projected to; 0: it stays as wide as a state.
      eps: epsilon of the norms.
      exact_gelu: whether the activation is the exact GELU, and not its approximation by tanh.
      dtype: dtype of the computation; the weights are float32.
    """

    vocabulary: int = 1024
    length: int = 32
    width: int = 256
    layers: int = 4
    heads: int = 4
    pad: int = 0
    filled: bool = False
    projection: int = 0
    eps: float = 1e-6
    exact_gelu: bool = False
    dtype: str = "float32"

    def check(self) -> None:
        """Refuses numbers that do not fit each other.

        Raises:
          ValueError: names the field, what it is, and what is expected.
        """
        counts = {"vocabulary": 3, "length": 2, "width": 1, "layers": 0, "heads": 1, "pad": -1, "projection": 0}
        for name, least in counts.items():
            if getattr(self, name) < least:
                raise ValueError(f"text encoder: {name} is {getattr(self, name)}: expected {least} or more")
        if self.width % self.heads:
            raise ValueError(f"text encoder: width {self.width} does not divide into {self.heads} heads")
        if not 0 < self.eps < 1:
            raise ValueError(f"text encoder: eps is {self.eps}: expected a number between 0 and 1")
        check_dtype("text encoder", self.dtype)


class TextTransformer(nn.Module):
    """The encoder of a `TextConfig`: tokens [b l] -> (states [b l w], mask [b l], pooled [b p]).

    `mask` is false at padding, which nothing looks at, and None where padding is `filled`. `pooled` is the mean state
    of the other tokens, or the last state.
    """

    config: TextConfig

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"]
    ) -> tuple[Float[Array, "b l w"], Bool[Array, "b l"] | None, Float[Array, "b p"]]:
        net = self.config
        net.check()
        mask: Array | None = tokens != net.pad
        x = nn.Embed(net.vocabulary, net.width, dtype=net.dtype, name="token_embed")(jnp.maximum(tokens, 0))
        positions = self.param("position_embed", nn.initializers.normal(0.02), (net.length, net.width))
        x = x + positions[None, : tokens.shape[1]]
        if net.filled:
            filler = self.param("padding_embed", nn.initializers.normal(0.02), (net.length, net.width))
            x = jnp.where(tokens[..., None] != net.pad, x, filler[None, : tokens.shape[1]]).astype(x.dtype)
            mask = None
        for i in range(net.layers):
            x = TextBlock(net.heads, net.eps, net.exact_gelu, dtype=net.dtype, name=f"block_{i}")(x, mask)
        x = _norm(net.eps, net.dtype, "norm_out")(x)
        if mask is None:
            pooled = x[:, -1].astype(jnp.float32)
        else:
            weight = mask[..., None].astype(jnp.float32)
            pooled = (x * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
        if net.projection:
            pooled = nn.Dense(net.projection, dtype=net.dtype, name="projection")(pooled)
        return x, mask, pooled


class TextBlock(nn.Module):
    """Self-attention and a GELU layer, each after a norm and added to its input."""

    heads: int
    eps: float = 1e-6
    exact_gelu: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"], mask: Bool[Array, "b l"] | None = None) -> Float[Array, "b l w"]:
        width = x.shape[-1]
        y = _norm(self.eps, self.dtype, "norm1")(x)
        x = x + Attention(self.heads, width // self.heads, bias=True, dtype=self.dtype, name="attn")(y, mask=mask)
        y = nn.Dense(4 * width, dtype=self.dtype, name="fc1")(_norm(self.eps, self.dtype, "norm2")(x))
        y = gelu(y) if self.exact_gelu else jax.nn.gelu(y)
        return x + nn.Dense(width, dtype=self.dtype, name="fc2")(y)


def _norm(eps: float, dtype: str, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=eps, dtype=dtype, name=name)
