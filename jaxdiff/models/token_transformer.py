"""A transformer over tokens that sees all of them, and the time: what says x_0 in diffusion of text.

Source: Austin et al. 2021 (D3PM), arXiv 2107.03006, appendix B (an encoder of T5's kind, conditioned on time);
blocks as in `image_transformer`, without its order.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.models.image_transformer import Block
from jaxdiff.nn.embedding import sinusoidal


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenTransformerConfig(NetConfig):
    """The numbers of a transformer over tokens.

    Attributes:
      width: width of a token; it divides into the heads.
      layers: blocks.
      heads: heads of each attention.
      dtype: dtype of the computation; outputs are float32.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4

    def build(self) -> nn.Module:
        """Makes the network of sequences of 32 tokens of 64 kinds."""
        return TokenTransformer(self, 32, 64)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other."""
        check_dtype("token_transformer", self.dtype)
        for name in ("width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"token_transformer: {name} is {getattr(self, name)}: expected 1 or more")
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"token_transformer: width {self.width} does not divide into {self.heads} heads, or is odd"
            )


Config = TokenTransformerConfig


class TokenTransformer(nn.Module):
    """The network of a `TokenTransformerConfig`: tokens 0 .. levels, the last a mask, to logits of levels."""

    config: TokenTransformerConfig
    length: int
    levels: int

    @nn.compact
    def __call__(self, x: Int[Array, "b n"], t: Float[Array, " b"]) -> Float[Array, "b n k"]:
        net: Any = self.config
        small = nn.initializers.normal(0.02)
        y = nn.Embed(self.levels + 1, net.width, dtype=net.dtype, embedding_init=small, name="tokens")(x)
        y = y + self.param("places", small, (self.length, net.width))[None].astype(net.dtype)
        y = y + nn.Dense(net.width, dtype=net.dtype, name="time")(sinusoidal(1000 * t, net.width))[:, None]
        for i in range(net.layers):
            y = Block(net, causal=False, name=f"block_{i}")(y)
        y = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=net.dtype, name="norm")(y)
        return nn.Dense(self.levels, dtype=net.dtype, name="out")(y).astype(jnp.float32)
