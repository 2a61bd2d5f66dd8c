"""unCLIP's prior: a transformer that imagines CLIP's embedding of a picture from a text.

A causal transformer over the text's states, the text's vector, the time, the noisy embedding and one learned token,
whose output is the estimate of the clean embedding itself. Embeddings are diffused after their mean was taken off and
their deviation divided out; `denormalised` puts both back.

    [text states, text vector, time, x_t, learned] -> x0

Source: Ramesh et al. 2022, arXiv 2204.06125, section 2.2 (the diffusion prior).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdiff.nn.attention import Attention
from jaxdiff.nn.embedding import Mlp, sinusoidal
from jaxdiff.nn.norm import gelu
from jaxdiff.typing import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """The numbers of a prior; the defaults are those of Karlo and Kandinsky.

    Attributes:
      embed: width of the embedding.
      text: width of the text's states; vector: of its vector.
      length: tokens of a text.
      layers: blocks.
      heads: attention heads, each of `head_dim`.
      states: whether the text's states are read, and not only its vector.
      last: whether a learned token at the end says the estimate; else the noisy embedding's does.
      norm_in, norm_vector: whether the tokens, and the text's vector, are normalised first.
      dtype: dtype of the computation.
    """

    embed: int = 768
    text: int = 768
    vector: int = 768
    length: int = 77
    layers: int = 20
    heads: int = 32
    head_dim: int = 64
    states: bool = True
    last: bool = True
    norm_in: bool = False
    norm_vector: bool = False
    dtype: str = "float32"


class Prior(nn.Module):
    """The network of a `PriorConfig`: (x_t[b e], t[b], vector, states, which of them count) -> x0[b e], float32."""

    config: PriorConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b e"],
        t: Float[Array, " b"],
        vector: Float[Array, "b v"],
        states: Float[Array, "b l w"] | None = None,
        mask: Bool[Array, "b l"] | None = None,
    ) -> Float[Array, "b e"]:
        net, width = self.config, self.config.heads * self.config.head_dim
        if net.states != (states is not None):
            raise ValueError(f"Prior: the text's states are {'missing' if net.states else 'given, and it reads none'}")

        def dense(name: str, x: Array) -> Array:
            return nn.Dense(width, dtype=net.dtype, name=name)(x)

        vector = _norm(net.dtype, "norm_vector")(vector) if net.norm_vector else vector
        time = Mlp(width, dtype=net.dtype, name="time_mlp")(sinusoidal(t, width, shift=0.0, sin_first=False))
        tokens = [] if states is None else [dense("text", states)]
        tokens += [y[:, None] for y in (dense("vector", vector), time, dense("proj_in", x))]
        zeros = nn.initializers.zeros
        if net.last:
            last = self.param("last", zeros, (1, 1, width)).astype(net.dtype)
            tokens.append(jnp.broadcast_to(last, (len(x), 1, width)))
        y = jnp.concatenate(tokens, 1)
        y = y + self.param("position", zeros, (1, y.shape[1], width)).astype(y.dtype)
        y = _norm(net.dtype, "norm_in")(y) if net.norm_in else y
        seen = None
        if mask is not None and states is not None:
            seen = jnp.pad(mask, ((0, 0), (0, y.shape[1] - mask.shape[1])), constant_values=True)
        for i in range(net.layers):
            y = PriorBlock(net.heads, net.head_dim, net.dtype, name=f"block_{i}")(y, seen)
        y = _norm(net.dtype, "norm_out")(y[:, -1])
        for name in ("clip_mean", "clip_std"):  # of `denormalised`
            self.param(name, zeros, (1, net.embed))
        return nn.Dense(net.embed, dtype=net.dtype, name="proj_out")(y).astype(jnp.float32)


class PriorBlock(nn.Module):
    """Causal self-attention and a feed-forward part with a GELU, each after a norm and added to its input."""

    heads: int
    head_dim: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], mask: Bool[Array, "b n"] | None = None) -> Float[Array, "b n c"]:
        width = x.shape[-1]
        attend = Attention(self.heads, self.head_dim, bias=True, dtype=self.dtype, name="attn")
        x = x + attend(_norm(self.dtype, "norm1")(x), mask=mask, causal=True)
        y = gelu(nn.Dense(4 * width, dtype=self.dtype, name="fc1")(_norm(self.dtype, "norm2")(x)))
        return x + nn.Dense(width, dtype=self.dtype, name="fc2")(y)


def _norm(dtype: str, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


def denormalised(params: Params, x0: Float[Array, "b e"]) -> Float[Array, "b e"]:
    """Returns CLIP's embedding of a diffused one: times the deviation, plus the mean."""
    mean, deviation = (jnp.asarray(params[name], jnp.float32) for name in ("clip_mean", "clip_std"))
    return x0 * deviation + mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextProjectionConfig:
    """The numbers of unCLIP's text projection.

    Attributes:
      tokens: number of tokens made of the picture's embedding, which stand before the text's states.
      width: width of the context.
      time: width of the vector that is added to the time embedding.
      embed: width of CLIP's embeddings.
      text: width of the text's states.
      dtype: dtype of the computation.
    """

    width: int
    time: int
    tokens: int = 4
    embed: int = 768
    text: int = 768
    dtype: str = "float32"


class TextProjection(nn.Module):
    """Makes the conditions of unCLIP's decoder, a context and a vector beside the time, of an embedding and a text.

    Source: Ramesh et al. 2022, arXiv 2204.06125, section 2.1.
    """

    config: TextProjectionConfig

    @nn.compact
    def __call__(
        self, embed: Float[Array, "b e"], vector: Float[Array, "b e"], states: Float[Array, "b l w"]
    ) -> tuple[Float[Array, "b m c"], Float[Array, "b t"]]:
        net = self.config
        self.param("no_embed", nn.initializers.zeros, (net.embed,))  # what stands for no picture; see `no_embed`

        def dense(name: str, width: int, x: Any) -> Array:
            return nn.Dense(width, dtype=net.dtype, name=name)(x)

        time = dense("time_embed", net.time, embed) + dense("time_vector", net.time, vector)
        tokens = dense("tokens", net.tokens * net.width, embed).reshape(len(embed), net.width, net.tokens)
        text = _norm(net.dtype, "norm_text")(dense("text", net.width, states))
        return jnp.concatenate([tokens.transpose(0, 2, 1), text], 1), time
