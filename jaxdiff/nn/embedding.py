"""Embeddings of time and other scalars."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.nn.norm import ACTIVATIONS


def sinusoidal(
    t: Float[Array, " b"],
    dim: int,
    *,
    max_period: float = 10_000.0,
    shift: float = 1.0,
    sin_first: bool = True,
) -> Float[Array, "b {dim}"]:
    """[sin(t w_i), cos(t w_i)] with w_i = max_period^(-i / (dim/2 - shift)), in float32.

    DDPM's code has shift 1 and sine first; Stable Diffusion's U-Net has shift 0 and cosine first.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.
    """
    half = dim // 2
    freqs = jnp.exp(-math.log(max_period) * jnp.arange(half, dtype=jnp.float32) / (half - shift))
    angles = t.astype(jnp.float32)[:, None] * freqs[None]
    parts = (jnp.sin(angles), jnp.cos(angles))
    out = jnp.concatenate(parts if sin_first else parts[::-1], -1)
    return jnp.pad(out, ((0, 0), (0, dim % 2)))


class Mlp(nn.Module):
    """Two dense layers with an activation between them: from an embedding to the vector that every block gets."""

    features: int
    zero: bool = False
    act: str = "silu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b e"]:
        last = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        x = ACTIVATIONS[self.act](nn.Dense(self.features, dtype=self.dtype, name="fc1")(x))
        return nn.Dense(self.features, kernel_init=last, dtype=self.dtype, name="fc2")(x)
