"""A decoder-only transformer over the tokens of a caption and then the codes of a picture, with sparse attention.

The sequence is T text tokens, the first a start, and N = h w codes in raster order. A state holds one token and says
the next one, so there are T + N - 1 states: the last code is only said. Padding is a token of its own at each position.

A state with a text token sees the text up to it. A state with code i sees all text, and of the codes j <= i

    full     all,
    row      i - j <= w: back to the one above it,
    column   those with i - j a multiple of w,
    conv     those with i - j = a w + b, 0 <= a <= r, -r <= b <= r: a (2r + 1) x (2r + 1) window,

where rows and windows wrap around at the borders. By default layers repeat row, column, row, row, and the last one's is
convolutional.

Source: Ramesh et al. 2021 (DALL-E), arXiv 2102.12092, section 2.2 and appendix B.1 (figure 11).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdiff.data.tokenizer import PAD
from jaxdiff.models import image_transformer
from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.nn import cached
from jaxdiff.nn.cached import Kept
from jaxdiff.nn.remat import Remat, recomputed
from jaxdiff.sampling import tokens as draws
from jaxdiff.typing import Key, Params

PATTERNS = ("full", "row", "column", "conv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextImageTransformerConfig(NetConfig):
    """The numbers of such a transformer.

    Attributes:
      width: width of a token; it divides into the heads.
      layers: blocks.
      heads: heads of each attention.
      attention: what the layers' attentions see, of full, row, column and conv; repeated until there is one each.
      last: what the last layer sees.
      window: side of a conv's window, odd.
      remat: what the backward pass computes again; see `nn.remat`.
      dtype: dtype of the computation; outputs are float32.
    """

    width: int = 256
    layers: int = 8
    heads: int = 4
    attention: tuple[str, ...] = ("row", "column", "row", "row")
    last: str = "conv"
    window: int = 11
    remat: Remat = "none"

    def build(self) -> nn.Module:
        """Makes the network of captions of 16 tokens of 300 and pictures of 8x8 codes of 512."""
        return TextImageTransformer(self, 300, 16, (8, 8), 512)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other."""
        name = "text_image_transformer"
        check_dtype(name, self.dtype)
        for field in ("width", "layers", "heads", "window"):
            if getattr(self, field) < 1:
                raise ValueError(f"{name}: {field} is {getattr(self, field)}: expected 1 or more")
        if self.width % self.heads:
            raise ValueError(f"{name}: width {self.width} does not divide into {self.heads} heads")
        if not self.window % 2:
            raise ValueError(f"{name}: window is {self.window}: expected an odd number")
        if not self.attention or {*self.attention, self.last} - {*PATTERNS}:
            raise ValueError(
                f"{name}: attention is {self.attention} and last {self.last!r}: expected some of {', '.join(PATTERNS)}"
            )

    def patterns(self) -> tuple[str, ...]:
        """Returns what each layer's attention sees."""
        repeated = (self.attention[i % len(self.attention)] for i in range(self.layers - 1))
        return (*repeated, self.last)


Config = TextImageTransformerConfig


def seen(pattern: str, length: int, shape: tuple[int, int], window: int = 11) -> Bool[np.ndarray, "n n"]:
    """Returns which states a state sees; n = `length` + h w - 1."""
    (h, w), r = shape, window // 2
    at = np.arange(length + h * w - 1)
    query, key = at[:, None] - length, at[None] - length  # numbers of codes; those of text are below 0
    back = query - key
    near = (back + r) % w <= 2 * r if 2 * r < w else np.ones_like(back, bool)
    # a window as wide as the picture reaches further rows by wrapping, but no further than its corners
    window_of = near & (back <= r * w + r)
    among = {"full": back >= 0, "row": back <= w, "column": back % w == 0, "conv": window_of}[pattern]
    return (back >= 0) & ((key < 0) | among)


def padded(tokens: Int[Array, "b t"], vocabulary: int) -> Int[Array, "b t"]:
    """Returns tokens with `vocabulary` + i for the padding at position i."""
    return jnp.where(tokens == PAD, vocabulary + jnp.arange(tokens.shape[1])[None], tokens)


class Block(image_transformer.Block):
    """A block of `image_transformer` whose attention has a mask."""

    def look(self, x: Float[Array, "b n c"], seen: Bool[Array, "n n"]) -> tuple[Float[Array, "b n c"], Kept]:
        """Returns the states, and their keys and values."""
        q, k, v = self._heads(x)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(jnp.where(seen[None, None], scores, jnp.finfo(jnp.float32).min))
        out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)
        return self._rest(x, out), (k, v)

    def look_on(self, x: Float[Array, "b 1 c"], kept: Kept, at: Any, seen: Bool[Array, " n"]) -> tuple[Array, Kept]:
        """Returns the state at place `at`, and what is kept with its own."""
        q, *own = self._heads(x)
        kept = cached.keep(kept, (own[0], own[1]), at)
        return self._rest(x, cached.attend_one(q, kept, seen)), kept


class TextImageTransformer(nn.Module):
    """The network of a `TextImageTransformerConfig`.

    Attributes:
      config: its numbers.
      vocabulary: text tokens, without those of padding.
      length: T.
      shape: (h, w).
      codes: codes of the autoencoder.
    """

    config: TextImageTransformerConfig
    vocabulary: int
    length: int
    shape: tuple[int, int]
    codes: int

    def setup(self) -> None:
        net, (h, w) = self.config, self.shape
        small = nn.initializers.normal(0.02)
        embed = lambda count: nn.Embed(count, net.width, dtype=net.dtype, embedding_init=small)
        self.words, self.values = embed(self.vocabulary + self.length), embed(self.codes)
        self.places, self.rows, self.columns = embed(self.length), embed(h), embed(w)
        block = recomputed(Block, net.remat, methods=["look"])
        self.blocks = [block(net) for _ in range(net.layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=net.dtype)
        self.next_word = nn.Dense(self.vocabulary + self.length, dtype=net.dtype)
        self.next_code = nn.Dense(self.codes, dtype=net.dtype)

    def __call__(
        self, tokens: Int[Array, "b t"], index: Int[Array, "b n"]
    ) -> tuple[Float[Array, "b u v"], Float[Array, "b n k"]]:
        """Returns logits of tokens 1 .. T - 1, and of all codes."""
        code = self._code(index[:, :-1], jnp.arange(index.shape[1] - 1))
        y, _ = self._through(jnp.concatenate([self._text(tokens), code], 1))
        last = self.length - 1
        return self.next_word(y[:, :last]).astype(jnp.float32), self.next_code(y[:, last:]).astype(jnp.float32)

    def start(self, tokens: Int[Array, "b t"]) -> tuple[Float[Array, "b k"], list[Kept]]:
        """Returns logits of the first code, and what is kept of the text, with room for all codes."""
        y, kept = self._through(self._text(tokens))
        room = lambda x: jnp.pad(x, ((0, 0), (0, int(np.prod(self.shape)) - 1), (0, 0), (0, 0)))
        return self.next_code(y[:, -1]).astype(jnp.float32), jax.tree.map(room, kept)

    def step(
        self, code: Int[Array, " b"], kept: list[Kept], at: Int[Array, ""]
    ) -> tuple[Float[Array, "b k"], list[Kept]]:
        """Returns logits of code `at` + 1, by code `at`, and what is kept with it."""
        y, after, place = self._code(code[:, None], at[None]), [], self.length + at
        for block, mask, old in zip(self.blocks, self._masks(), kept, strict=True):
            y, new = block.look_on(y, old, place, mask[place])
            after.append(new)
        return self.next_code(self.norm(y)[:, 0]).astype(jnp.float32), after

    def _text(self, tokens: Array) -> Array:
        return self.words(padded(tokens, self.vocabulary)) + self.places(jnp.arange(self.length))[None]

    def _code(self, index: Array, at: Array) -> Array:
        rows, columns = jnp.divmod(at, self.shape[1])
        return self.values(index) + (self.rows(rows) + self.columns(columns))[None]

    def _masks(self) -> list[Array]:
        net = self.config
        found = {one: jnp.asarray(seen(one, self.length, self.shape, net.window)) for one in set(net.patterns())}
        return [found[one] for one in net.patterns()]

    def _through(self, y: Array) -> tuple[Array, list[Kept]]:
        """Returns the first states after all blocks and the norm, and what each block keeps."""
        kept, n = [], y.shape[1]
        for block, mask in zip(self.blocks, self._masks(), strict=True):
            y, own = block.look(y, mask[:n, :n])
            kept.append(own)
        return self.norm(y), kept


def sample(
    module: TextImageTransformer,
    params: Params,
    tokens: Int[Array, "b t"],
    away: Int[Array, " t"] | None,
    keys: Key,
    numbers: draws.Numbers,
) -> Int[Array, "b n"]:
    """Draws the codes of pictures in one scan that keeps keys and values, code i from fold_in(key, i).

    Args:
      module: the network.
      params: its parameters.
      tokens: the captions.
      away: what is said in the place of a caption that is left out, for guidance; None: no guidance.
      keys: one for each picture.
      numbers: how tokens are drawn.
    """
    apply: Any = lambda method, *args: module.apply({"params": params}, *args, method=method)
    ways = 1 if away is None else 2
    both = tokens if away is None else jnp.concatenate([tokens, jnp.broadcast_to(away[None], tokens.shape)])

    def pick(logits: Array, at: Any) -> Array:
        logits = logits if away is None else draws.guided(logits, numbers.guidance)
        return draws.draw(jax.vmap(lambda key: jax.random.fold_in(key, at))(keys), logits, numbers)

    def step(state: tuple[Array, Any], at: Array) -> tuple[Any, Array]:
        logits, kept = state
        code = pick(logits, at)
        return apply("step", jnp.tile(code, ways), kept, at), code

    count = int(np.prod(module.shape))
    (logits, _), first = jax.lax.scan(step, apply("start", both), jnp.arange(count - 1))
    return jnp.concatenate([first, pick(logits, count - 1)[None]]).T
