"""CLIP's image encoder, and what stands on it: the IP-adapter's tokens and Stable Diffusion's safety checker.

Sources: Radford et al. 2021, arXiv 2103.00020, section 2.4; Ye et al. 2023 (IP-adapter), arXiv 2308.06721, section 3.2;
the safety checker: Rando et al. 2022, arXiv 2210.04610, section 2.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdiff.models.text_clip import ClipBlock, gelu
from jaxdiff.nn.attention import attention
from jaxdiff.nn.conv import Conv

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipImageConfig:
    """The numbers of a CLIP image encoder; the defaults are ViT-L/14's.

    Attributes:
      size: side of the picture it takes.
      patch: side of the squares that become tokens.
      width: width of a token's state.
      mlp: width inside a block's feed-forward part.
      layers: blocks.
      heads: attention heads.
      activation: `quick_gelu` or `gelu`.
      projection: width of the picture's vector.
      eps: epsilon of the norms.
      dtype: dtype of the computation.
    """

    size: int = 224
    patch: int = 14
    width: int = 1024
    mlp: int = 4096
    layers: int = 24
    heads: int = 16
    activation: str = "quick_gelu"
    projection: int = 768
    eps: float = 1e-5
    dtype: str = "float32"


class ClipImage(nn.Module):
    """The encoder of a `ClipImageConfig`: pixels as `prepare` makes them -> (tokens' states, picture's vector)."""

    config: ClipImageConfig

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "b h w 3"], skip: int = 0
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b p"]]:
        """States after all blocks but the last `skip`, without the final norm; and the projected vector.

        Raises:
          ValueError: if the picture has another size, or `skip` is not within 0 .. layers - 1.
        """
        net = self.config
        if pixels.shape[1:3] != (net.size, net.size):
            raise ValueError(f"CLIP: a picture of {pixels.shape[1]}x{pixels.shape[2]}, expected {net.size}x{net.size}")
        if not 0 <= skip < net.layers:
            raise ValueError(f"CLIP: skip={skip} of {net.layers} layers: expected 0 .. {net.layers - 1}")
        b, side = len(pixels), net.size // net.patch
        x = Conv(net.width, net.patch, net.patch, 0, bias=False, dtype=net.dtype, name="patch_embed")(pixels)
        x = x.reshape(b, side * side, net.width)
        normal = nn.initializers.normal(0.02)
        first = self.param("class_embed", normal, (net.width,)).astype(net.dtype)
        place = self.param("position_embed", normal, (side * side + 1, net.width)).astype(net.dtype)
        x = jnp.concatenate([jnp.broadcast_to(first, (b, 1, net.width)), x], 1) + place[None]
        x = nn.LayerNorm(epsilon=net.eps, use_fast_variance=False, dtype=net.dtype, name="norm_in")(x)
        states = x
        for i in range(net.layers):
            x = ClipBlock(net.heads, net.mlp, net.activation, False, net.eps, net.dtype, name=f"block_{i}")(x)
            states = x if i == net.layers - 1 - skip else states
        y = nn.LayerNorm(epsilon=net.eps, use_fast_variance=False, dtype=net.dtype, name="norm_out")(x[:, 0])
        return states, nn.Dense(net.projection, use_bias=False, dtype=net.dtype, name="projection")(y)


def prepare(pictures: Float[Array, "b h w 3"], size: int = 224) -> Float[Array, "b {size} {size} 3"]:
    """Returns pictures in [0, 1], scaled until the shorter side is `size`, their middle cut out, and normalised."""
    height, width = pictures.shape[1:3]
    scale = size / min(height, width)
    shape = (max(size, int(height * scale)), max(size, int(width * scale)))
    x = pictures
    for target in ((height, shape[1]), shape):  # rows, then columns, rounded to 8 bits after each, as Pillow does
        x = jax.image.resize(x, (len(x), *target, 3), "cubic", antialias=True)
        x = jnp.round(jnp.clip(x, 0, 1) * 255) / 255
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return normalised(x[:, top : top + size, left : left + size])


def normalised(pictures: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Returns pictures in [0, 1] less the mean of CLIP's, over their deviation."""
    return (pictures - jnp.array(MEAN)[None, None, None]) / jnp.array(STD)[None, None, None]


class ImageTokens(nn.Module):
    """The IP-adapter's projection: a picture's vector becomes `tokens` tokens of `width` for cross-attention."""

    tokens: int
    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b p"]) -> Float[Array, "b m e"]:
        y = nn.Dense(self.tokens * self.width, dtype=self.dtype, name="proj")(x)
        y = y.reshape(len(x), self.tokens, self.width)
        return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name="norm")(y)


class StateTokens(nn.Module):
    """The full IP-adapter's projection: each state of the picture's tokens becomes one token of `width`."""

    width: int
    hidden: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, states: Float[Array, "b l d"]) -> Float[Array, "b l e"]:
        y = gelu(nn.Dense(self.hidden, dtype=self.dtype, name="fc1")(states))
        y = nn.Dense(self.width, dtype=self.dtype, name="fc2")(y)
        return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name="norm")(y)


class Resampler(nn.Module):
    """The IP-adapter plus' projection: learned queries look at the states of a picture's tokens.

    Each block is attention of the queries over states and queries, then a feed-forward part, both added to its input.

    Source: Alayrac et al. 2022 (Perceiver resampler), arXiv 2204.14198, section 3.1.1.
    """

    tokens: int
    width: int
    hidden: int
    heads: int
    head_dim: int = 64
    layers: int = 4
    ratio: int = 4
    dtype: str = "float32"

    @nn.compact
    def __call__(self, states: Float[Array, "b l d"]) -> Float[Array, "b m e"]:
        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name=name)

        def dense(width: int, name: str, bias: bool = False) -> nn.Dense:
            return nn.Dense(width, use_bias=bias, dtype=self.dtype, name=name)

        def heads(x: Array) -> Array:
            return x.reshape(*x.shape[:2], self.heads, self.head_dim)

        latents = self.param("latents", nn.initializers.normal(self.hidden**-0.5), (1, self.tokens, self.hidden))
        x = jnp.broadcast_to(latents.astype(self.dtype), (len(states), self.tokens, self.hidden))
        states = dense(self.hidden, "proj_in", bias=True)(states)
        for i in range(self.layers):
            y = norm(f"block_{i}_norm2")(x)
            seen = jnp.concatenate([norm(f"block_{i}_norm1")(states), y], 1)
            inner = self.heads * self.head_dim
            k, v = jnp.split(dense(2 * inner, f"block_{i}_kv")(seen), 2, -1)
            out = attention(heads(dense(inner, f"block_{i}_q")(y)), heads(k), heads(v))
            x = x + dense(self.hidden, f"block_{i}_out")(out.reshape(*out.shape[:2], inner))
            y = gelu(dense(self.ratio * self.hidden, f"block_{i}_fc1")(norm(f"block_{i}_norm3")(x)))
            x = x + dense(self.hidden, f"block_{i}_fc2")(y)
        return norm("norm_out")(dense(self.width, "proj_out", bias=True)(x))


class SafetyChecker(nn.Module):
    """Tells whether pictures show what they should not: some cosine to a known concept is above its threshold.

    A picture near one of the special concepts is held to thresholds lower by 0.01.
    """

    config: ClipImageConfig
    concepts: int = 17
    special: int = 3

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Bool[Array, " b"]:
        width = self.config.projection
        ones = nn.initializers.ones
        concepts, limits = (
            self.param("concepts", ones, (self.concepts, width)),
            self.param("limits", ones, (self.concepts,)),
        )
        special = self.param("special", ones, (self.special, width))
        special_limits = self.param("special_limits", ones, (self.special,))
        _, vector = ClipImage(self.config, name="image")(pixels)
        # the scores are rounded to three decimals before they are compared with 0
        near = jnp.round(_cosine(vector, special) - special_limits[None], 3) > 0
        lower = 0.01 * near.any(-1, keepdims=True)
        return (jnp.round(_cosine(vector, concepts) - limits[None] + lower, 3) > 0).any(-1)


def _cosine(a: Array, b: Array) -> Array:
    a, b = (x.astype(jnp.float32) for x in (a, b))
    a, b = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return a @ b.T
