"""The text encoder that is trained together with a U-Net, as in GLIDE: states for cross-attention, and one vector.

Source: Nichol et al. 2021, arXiv 2112.10741, section 4.1.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdiff.models.config import check_dtype
from jaxdiff.nn.attention import Attention


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The numbers of a text encoder.

    Attributes:
      vocabulary: token ids it knows; 0 is padding.
      length: tokens of a text, start and end included.
      width: width of a token's state.
      layers: transformer blocks.
      heads: attention heads.
      dtype: dtype of the computation; the weights are float32.
    """

    vocabulary: int = 1024
    length: int = 32
    width: int = 256
    layers: int = 4
    heads: int = 4
    dtype: str = "float32"

    def check(self) -> None:
        """Refuses numbers that do not fit each other.

        Raises:
          ValueError: names the field, what it is, and what is expected.
        """
        for name, least in (("vocabulary", 3), ("length", 2), ("width", 1), ("layers", 0), ("heads", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"text encoder: {name} is {getattr(self, name)}: expected {least} or more")
        if self.width % self.heads:
            raise ValueError(f"text encoder: width {self.width} does not divide into {self.heads} heads")
        check_dtype("text encoder", self.dtype)


class TextTransformer(nn.Module):
    """The encoder of a `TextConfig`: tokens [b l] -> (states [b l w], mask [b l], pooled [b w]).

    `mask` is false at padding, which nothing looks at; `pooled` is the mean state of the other tokens.
    """

    config: TextConfig

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"]
    ) -> tuple[Float[Array, "b l w"], Bool[Array, "b l"], Float[Array, "b w"]]:
        net = self.config
        net.check()
        mask = tokens != 0
        x = nn.Embed(net.vocabulary, net.width, dtype=net.dtype, name="token_embed")(tokens)
        positions = self.param("position_embed", nn.initializers.normal(0.02), (net.length, net.width))
        x = x + positions[None, : tokens.shape[1]]
        for i in range(net.layers):
            x = TextBlock(net.heads, dtype=net.dtype, name=f"block_{i}")(x, mask)
        x = nn.LayerNorm(dtype=net.dtype, name="norm_out")(x)
        weight = mask[..., None].astype(jnp.float32)
        return x, mask, (x * weight).sum(1) / jnp.maximum(weight.sum(1), 1)


class TextBlock(nn.Module):
    """Self-attention and a GELU layer, each after a norm and added to its input."""

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"], mask: Bool[Array, "b l"]) -> Float[Array, "b l w"]:
        width = x.shape[-1]
        y = nn.LayerNorm(dtype=self.dtype, name="norm1")(x)
        x = x + Attention(self.heads, width // self.heads, bias=True, dtype=self.dtype, name="attn")(y, mask=mask)
        y = nn.LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = jax.nn.gelu(nn.Dense(4 * width, dtype=self.dtype, name="fc1")(y))
        return x + nn.Dense(width, dtype=self.dtype, name="fc2")(y)
