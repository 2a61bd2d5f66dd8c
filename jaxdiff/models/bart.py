"""An encoder of text and a decoder of picture tokens (DALL-E mini and mega): BART with NormFormer's norms and gates.

Each part is y = x + norm(attention(norm(x))) and y = x + W_2 norm(gelu(norm(x) W_0) * (norm(x) W_1)); norms before a
product have no scale, unless `scales` says so. Drawn, the decoder keeps keys and values; those of the text are made
once.

Sources: Dayma et al. 2021 (DALL-E mini) and its released code; Lewis et al. 2020 (BART), arXiv 1910.13461; Shleifer et
al. 2021 (NormFormer), arXiv 2110.09456; Shazeer 2020, arXiv 2002.05202 (gates).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdiff.nn import cached
from jaxdiff.nn.attention import attention
from jaxdiff.nn.cached import Kept
from jaxdiff.nn.norm import gelu
from jaxdiff.sampling import tokens as draws
from jaxdiff.typing import Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class BartConfig:
    """The numbers of such a model; the defaults are DALL-E mini's.

    Attributes:
      vocabulary: text tokens.
      length: tokens of a text.
      values: picture tokens it can say, with some that are no code, without the last one, which begins a picture.
      codes: those of them that are codes of the autoencoder, the first ones.
      places: tokens of a picture.
      start: the token that begins a picture.
      width: width of a token.
      encoder_layers: blocks of the encoder.
      decoder_layers: blocks of the decoder.
      encoder_heads: heads of each attention of the encoder.
      decoder_heads: heads of each attention of the decoder.
      encoder_hidden: width inside a feed-forward part of the encoder.
      decoder_hidden: width inside a feed-forward part of the decoder.
      bias: whether products have a bias.
      scales: whether norms before a product have a scale.
      dtype: dtype of the computation; outputs are float32.
    """

    vocabulary: int = 50264
    length: int = 64
    values: int = 16391
    codes: int = 16384
    places: int = 256
    start: int = 16384
    width: int = 1024
    encoder_layers: int = 12
    decoder_layers: int = 12
    encoder_heads: int = 16
    decoder_heads: int = 16
    encoder_hidden: int = 4096
    decoder_hidden: int = 4096
    bias: bool = False
    scales: bool = False
    dtype: str = "float32"


def _norm(net: BartConfig, scale: bool = True) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_scale=scale, use_fast_variance=False, dtype=net.dtype)


class Attention(nn.Module):
    """The projections of an attention, and the norms around it."""

    net: BartConfig
    heads: int

    def setup(self) -> None:
        net = self.net
        dense = lambda: nn.Dense(net.width, use_bias=net.bias, dtype=net.dtype)
        self.norm_in, self.norm_out = _norm(net, net.scales), _norm(net)
        self.q, self.k, self.v, self.out = dense(), dense(), dense(), dense()

    def kept(self, y: Float[Array, "b n c"]) -> Kept:
        """Returns keys and values of normalised states, or of the text's."""
        return self._heads(self.k(y)), self._heads(self.v(y))

    def look(
        self, x: Array, y: Float[Array, "b n c"], kept: Kept, mask: Bool[Array, "b m"] | None, causal: bool = False
    ) -> Float[Array, "b n c"]:
        """Returns x and what normalised states y see of what is kept."""
        return self._added(x, attention(self._heads(self.q(y)), *kept, mask=mask, causal=causal))

    def look_back(self, x: Array, y: Float[Array, "b 1 c"], kept: Kept, seen: Bool[Array, " n"]) -> Array:
        """Returns the same for the state of one token, which sees the same places in each example."""
        return self._added(x, cached.attend_one(self._heads(self.q(y)), kept, seen))

    def _added(self, x: Array, out: Array) -> Array:
        return x + self.norm_out(self.out(out.reshape(x.shape)))

    def _heads(self, y: Array) -> Array:
        return y.reshape(*y.shape[:2], self.heads, -1)


class Gated(nn.Module):
    """The feed-forward part."""

    net: BartConfig
    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        net = self.net
        dense = lambda features, name: nn.Dense(features, use_bias=net.bias, dtype=net.dtype, name=name)
        y = _norm(net, net.scales).copy(name="norm_in")(x)
        y = gelu(dense(self.hidden, "gate")(y)) * dense(self.hidden, "value")(y)
        return x + dense(net.width, "out")(_norm(net, net.scales).copy(name="norm_mid")(y))


class Layer(nn.Module):
    """A block of the encoder, or with `crosses` of the decoder, which also looks at the text."""

    net: BartConfig
    heads: int
    hidden: int
    crosses: bool

    def setup(self) -> None:
        self.attn, self.ff = Attention(self.net, self.heads), Gated(self.net, self.hidden)
        if self.crosses:
            self.cross = Attention(self.net, self.heads)

    def __call__(self, x: Array, mask: Array | None, text: Kept | None = None, text_mask: Any = None) -> Array:
        """Returns the states after the block; of the decoder's, each sees those before it."""
        y = self.attn.norm_in(x)
        x = self.attn.look(x, y, self.attn.kept(y), mask, causal=self.crosses)
        return self._rest(x, text, text_mask)

    def step(self, x: Array, kept: Kept, at: Array, text: Kept, text_mask: Array) -> tuple[Array, Kept]:
        """Returns the state [b 1 c] at place `at`, and what is kept with its own."""
        y = self.attn.norm_in(x)
        kept = cached.keep(kept, self.attn.kept(y), at)
        return self._rest(self.attn.look_back(x, y, kept, jnp.arange(kept[0].shape[1]) <= at), text, text_mask), kept

    def _rest(self, x: Array, text: Kept | None, text_mask: Array | None) -> Array:
        if text is not None:
            x = self.cross.look(x, self.cross.norm_in(x), text, text_mask)
        return self.ff(x)


class Half(nn.Module):
    """The encoder or the decoder: embeddings, blocks and a norm."""

    net: BartConfig
    crosses: bool

    def setup(self) -> None:
        net = self.net
        count, places = (net.values + 1, net.places) if self.crosses else (net.vocabulary, net.length)
        layers = net.decoder_layers if self.crosses else net.encoder_layers
        heads = net.decoder_heads if self.crosses else net.encoder_heads
        hidden = net.decoder_hidden if self.crosses else net.encoder_hidden
        self.embed, self.place = (nn.Embed(n, net.width, dtype=net.dtype) for n in (count, places))
        self.norm_in, self.norm_out = _norm(net), _norm(net, net.scales)
        self.layer = [Layer(net, heads, hidden, self.crosses) for _ in range(layers)]

    def first(self, tokens: Int[Array, "b n"], at: Int[Array, " n"]) -> Float[Array, "b n c"]:
        """Returns the states before the first block."""
        return self.norm_in(self.embed(tokens) + self.place(at)[None])

    def __call__(
        self, tokens: Int[Array, "b n"], mask: Array | None, text: Array | None = None, text_mask: Any = None
    ) -> Array:
        """Returns the last states."""
        x = self.first(tokens, jnp.arange(tokens.shape[1]))
        for layer in self.layer:
            x = layer(x, mask, None if text is None else layer.cross.kept(text), text_mask)
        return self.norm_out(x)


class Bart(nn.Module):
    """The network of a `BartConfig`."""

    config: BartConfig

    def setup(self) -> None:
        net = self.config
        self.encoder, self.decoder = Half(net, False), Half(net, True)
        self.says = nn.Dense(net.values + 1, use_bias=False, dtype=net.dtype)

    def __call__(
        self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"], codes: Int[Array, "b n"]
    ) -> Float[Array, "b n v"]:
        """Returns logits of the picture token after each that is given, the first of which is the start."""
        text = self.encoder(ids, mask)
        return self.says(self.decoder(codes, None, text, mask)).astype(jnp.float32)

    def start(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> list[Kept]:
        """Returns keys and values of the text for each of the decoder's blocks."""
        text = self.encoder(ids, mask)
        return [layer.cross.kept(text) for layer in self.decoder.layer]

    def step(
        self,
        token: Int[Array, " b"],
        kept: list[Kept],
        at: Int[Array, ""],
        text: list[Kept],
        mask: Bool[Array, "b l"],
        guidance: Any,
    ) -> tuple[Float[Array, "c v"], list[Kept]]:
        """Returns logits of the token after the one at place `at`, and what is kept with it.

        Logits are linear in the last states, so guidance is of these: the product with all tokens has half the rows.
        """
        x, after = self.decoder.first(token[:, None], at[None]), []
        for layer, old, seen in zip(self.decoder.layer, kept, text, strict=True):
            x, new = layer.step(x, old, at, seen, mask)
            after.append(new)
        x = self.decoder.norm_out(x)[:, 0]
        x = x if guidance is None else draws.guided(x.astype(jnp.float32), guidance)
        return self.says(x).astype(jnp.float32), after


def sample(
    net: BartConfig,
    params: Params,
    ids: Int[Array, "b l"],
    away: Int[Array, " l"] | None,
    pad: int,
    keys: Key,
    numbers: draws.Numbers,
) -> Int[Array, "b n"]:
    """Draws the codes of a picture for each text, code i from fold_in(key, i), in one scan; other tokens are not drawn.

    Args:
      net: the numbers of the network.
      params: its parameters.
      ids: the texts.
      away: the text of nothing, for guidance; None: no guidance.
      pad: the token that does not count.
      keys: one for each picture.
      numbers: how tokens are drawn.
    """
    apply: Any = lambda method, *args: Bart(net).apply({"params": params}, *args, method=method)
    ways = 1 if away is None else 2
    both = ids if away is None else jnp.concatenate([ids, jnp.broadcast_to(away[None], ids.shape)])
    mask = both != pad
    text = apply("start", both, mask)
    shape = (len(both), net.places, net.decoder_heads, net.width // net.decoder_heads)
    kept = [(jnp.zeros(shape, net.dtype), jnp.zeros(shape, net.dtype)) for _ in range(net.decoder_layers)]

    def step(state: tuple[Array, Any], at: Array) -> tuple[Any, Array]:
        token, kept = state
        guidance = None if away is None else numbers.guidance
        logits, kept = apply("step", jnp.tile(token, ways), kept, at, text, mask, guidance)
        own = jax.vmap(lambda key: jax.random.fold_in(key, at))(keys)
        code = draws.draw(own, logits[:, : net.codes], numbers)
        return (code, kept), code

    first = jnp.full(len(ids), net.start, jnp.int32)
    _, index = jax.lax.scan(step, (first, kept), jnp.arange(net.places))
    return index.T
