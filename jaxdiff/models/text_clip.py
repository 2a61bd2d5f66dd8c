"""CLIP's text encoder: what tells Stable Diffusion's U-Net about the prompt.

A causal transformer over byte-pair tokens. Its states are the context of cross-attention: of the last block after the
final norm (SD 1 and 2), or of an earlier one (`skip`; SDXL takes the last but one, without the norm). The vector of
the whole text is the state at the end token, after the norm, projected where the model has a projection.

Sources: Radford et al. 2021, arXiv 2103.00020, section 2.4; Podell et al. 2023, arXiv 2307.01952, section 2.1.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.nn.attention import Attention


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """The numbers of a CLIP text encoder; the defaults are ViT-L/14's.

    Attributes:
      vocabulary: token ids it knows.
      length: tokens of a text, start and end included.
      width: width of a token's state.
      mlp: width inside a block's feed-forward part.
      layers: blocks.
      heads: attention heads.
      activation: `quick_gelu` (OpenAI's) or `gelu` (OpenCLIP's).
      projection: width of the text's vector after its projection; 0: no projection.
      end: id of the end token; the first in a text counts. None: the largest id of the text is taken to be the end.
      eps: epsilon of the norms.
      dtype: dtype of the computation.
    """

    vocabulary: int = 49408
    length: int = 77
    width: int = 768
    mlp: int = 3072
    layers: int = 12
    heads: int = 12
    activation: str = "quick_gelu"
    projection: int = 0
    end: int | None = 49407
    eps: float = 1e-5
    dtype: str = "float32"


class ClipText(nn.Module):
    """The encoder of a `ClipTextConfig`."""

    config: ClipTextConfig

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"], skip: int = 0, norm: bool = True
    ) -> tuple[Float[Array, "b l w"], Float[Array, "b p"]]:
        """States of the tokens and the vector of the text.

        Args:
          tokens: ids, at most `length` of them.
          skip: the states are those after all blocks but the last `skip`.
          norm: whether the final norm is applied to them.

        Raises:
          ValueError: if `skip` is not within 0 .. layers - 1, or there are too many tokens.
        """
        net = self.config
        if not 0 <= skip < net.layers:
            raise ValueError(f"CLIP: skip={skip} of {net.layers} layers: expected 0 .. {net.layers - 1}")
        if tokens.shape[1] > net.length:
            raise ValueError(f"CLIP: {tokens.shape[1]} tokens, at most {net.length}: encode a long prompt in chunks")
        place = self.param("position_embed", nn.initializers.normal(0.01), (net.length, net.width))
        x = nn.Embed(net.vocabulary, net.width, dtype=net.dtype, name="token_embed")(tokens)
        x = x + place[None, : tokens.shape[1]].astype(net.dtype)
        states = x
        for i in range(net.layers):
            x = ClipBlock(net.heads, net.mlp, net.activation, True, net.eps, net.dtype, name=f"block_{i}")(x)
            states = x if i == net.layers - 1 - skip else states
        final = nn.LayerNorm(epsilon=net.eps, use_fast_variance=False, dtype=net.dtype, name="norm_out")
        last = final(x)
        end = jnp.argmax(tokens if net.end is None else tokens == net.end, -1)
        pooled = jnp.take_along_axis(last, end[:, None, None], 1)[:, 0]
        if net.projection:
            pooled = nn.Dense(net.projection, use_bias=False, dtype=net.dtype, name="projection")(pooled)
        return (final(states) if norm else states), pooled


class ClipBlock(nn.Module):
    """Self-attention and a feed-forward part, each after a norm and added to its input; also the image encoder's."""

    heads: int
    mlp: int
    activation: str
    causal: bool
    eps: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"]) -> Float[Array, "b l w"]:
        width = x.shape[-1]

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=self.eps, use_fast_variance=False, dtype=self.dtype, name=name)

        attention = Attention(self.heads, width // self.heads, bias=True, dtype=self.dtype, name="attn")
        x = x + attention(norm("norm1")(x), causal=self.causal)
        y = ACTIVATIONS[self.activation](nn.Dense(self.mlp, dtype=self.dtype, name="fc1")(norm("norm2")(x)))
        return x + nn.Dense(width, dtype=self.dtype, name="fc2")(y)


def quick_gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns x sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns x Phi(x), exactly."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}
