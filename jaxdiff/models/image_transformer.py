"""A transformer over the parts of a picture, row by row: causal attention, each part given those before it.

The token of part i is the value of the part before it, and i's row, column and channel; the first one's value is
learned. All earlier parts are seen, where Parmar et al. look at a block of them. Drawn, keys and values are kept: a
step of the one scan is a token through all layers, whose attention looks at what is there.

Sources: Parmar et al. 2018 (Image Transformer), arXiv 1802.05751; blocks normalise first (Radford et al. 2019, GPT-2).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.models.config import check_dtype
from jaxdiff.models.ordered import OrderedConfig, Pick
from jaxdiff.nn import cached
from jaxdiff.nn.attention import attention
from jaxdiff.nn.norm import gelu
from jaxdiff.typing import Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTransformerConfig(OrderedConfig):
    """The numbers of an image transformer.

    Attributes:
      width: width of a token; it divides into the heads.
      layers: blocks.
      heads: heads of each attention.
      dtype: dtype of the computation; outputs are float32.
    """

    width: int = 128
    layers: int = 6
    heads: int = 4

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other."""
        check_dtype("image_transformer", self.dtype)
        for name in ("width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"image_transformer: {name} is {getattr(self, name)}: expected 1 or more")
        if self.width % self.heads:
            raise ValueError(f"image_transformer: width {self.width} does not divide into {self.heads} heads")

    def make(self, shape: tuple[int, ...], groups: int, outputs: int, classes: int) -> nn.Module:
        """Makes the network."""
        return ImageTransformer(self, shape, groups, outputs, classes)

    def sample(
        self, module: Any, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick
    ) -> Float[Array, "b h w c"]:
        """Draws pictures, keeping keys and values."""
        return sample(module, params, keys, label, shape, pick)


Config = ImageTransformerConfig


class Block(nn.Module):
    """Attention and a feed-forward part, each added to what goes in after a norm of its own."""

    config: Any
    causal: bool = True

    def setup(self) -> None:
        net = self.config
        norm = lambda: nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=net.dtype)
        dense = lambda features: nn.Dense(features, dtype=net.dtype)
        self.norm1, self.norm2, self.qkv, self.out = norm(), norm(), dense(3 * net.width), dense(net.width)
        self.fc1, self.fc2 = dense(4 * net.width), dense(net.width)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        q, k, v = self._heads(x)
        return self._rest(x, attention(q, k, v, causal=self.causal))

    def step(self, x: Float[Array, "b 1 c"], kept: cached.Kept, at: Any) -> tuple[Array, cached.Kept]:
        """Returns the token at place `at`, and keys and values [b n h d] with its own."""
        q, *own = self._heads(x)
        k, v = cached.keep(kept, (own[0], own[1]), at)
        seen = jnp.broadcast_to(jnp.arange(k.shape[1])[None] <= at, k.shape[:2])
        return self._rest(x, attention(q, k, v, mask=seen)), (k, v)

    def _heads(self, x: Array) -> list[Array]:
        parts = jnp.split(self.qkv(self.norm1(x)), 3, -1)
        return [part.reshape(*part.shape[:2], self.config.heads, -1) for part in parts]

    def _rest(self, x: Array, seen: Array) -> Array:
        x = x + self.out(seen.reshape(x.shape))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


class ImageTransformer(nn.Module):
    """The network of an `ImageTransformerConfig`."""

    config: ImageTransformerConfig
    shape: tuple[int, ...]
    groups: int
    outputs: int
    classes: int = 0

    def setup(self) -> None:
        net, (h, w, _) = self.config, self.shape
        small = nn.initializers.normal(0.02)
        self.value = nn.Dense(net.width, dtype=net.dtype)
        self.first = self.param("first", small, (1, 1, net.width))
        self.places = [self.param(name, small, (n, net.width)) for name, n in self._axes(h, w)]
        self.blocks = [Block(net) for _ in range(net.layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=net.dtype)
        self.last = nn.Dense(self.outputs, dtype=net.dtype)
        if self.classes:
            self.label = nn.Embed(self.classes, net.width, dtype=net.dtype)

    def _axes(self, h: int, w: int) -> list[tuple[str, int]]:
        return [("rows", h), ("columns", w), ("channels", self.groups)]

    def __call__(self, x: Float[Array, "b h w c"], label: Any = None) -> Float[Array, "b h w o"]:
        parts = x.reshape(len(x), -1, x.shape[-1] // self.groups)
        values = self.value(parts[:, :-1].astype(self.config.dtype))
        y = jnp.concatenate([jnp.broadcast_to(self.first, (len(x), 1, self.config.width)), values], 1)
        y = y + self._place(jnp.arange(parts.shape[1]), label)
        for block in self.blocks:
            y = block(y)
        return self.read(y).reshape(*x.shape[:3], -1)

    def read(self, y: Float[Array, "b n c"]) -> Float[Array, "b n o"]:
        """Returns the outputs."""
        return self.last(self.norm(y)).astype(jnp.float32)

    def _place(self, at: Array, label: Any) -> Array:
        """Returns what is added to the tokens at some places [n], and of the class."""
        rest, g = jnp.divmod(at, self.groups)
        rows, columns = jnp.divmod(rest, self.shape[1])
        of_row, of_column, of_channel = self.places
        embedded = (of_row[rows] + of_column[columns] + of_channel[g])[None]
        return embedded + self.label(label)[:, None] if self.classes else embedded

    def step(
        self, value: Float[Array, "b v"], kept: list[tuple[Array, Array]], at: Any, label: Any
    ) -> tuple[Array, list[tuple[Array, Array]]]:
        """Returns the outputs [b o] of the part at place `at`, by the value of the one before, and what is kept."""
        own = self.value(value[:, None].astype(self.config.dtype))
        y = jnp.where(at == 0, jnp.broadcast_to(self.first, own.shape), own) + self._place(at[None], label)
        after = []
        for block, old in zip(self.blocks, kept, strict=True):
            y, new = block.step(y, old, at)
            after.append(new)
        return self.read(y)[:, 0], after


def sample(
    module: ImageTransformer, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick
) -> Float[Array, "b h w c"]:
    """Draws pictures, as `ordered.draw` does: one scan over the parts."""
    net, b, width = module.config, keys.shape[0], shape[-1] // module.groups
    count = int(np.prod(shape)) // width
    blank = lambda: jnp.zeros((b, count, net.heads, net.width // net.heads), net.dtype)
    apply: Any = lambda *args: module.apply({"params": params}, *args, label, method="step")

    def step(state: tuple[Array, Any], at: Array) -> tuple[Any, Array]:
        value, kept = state
        out, kept = apply(value, kept, at)
        value = jax.vmap(lambda key, out: pick(jax.random.fold_in(key, at), out))(keys, out).astype(jnp.float32)
        return (value, kept), value

    kept = [(blank(), blank()) for _ in range(net.layers)]
    _, values = jax.lax.scan(step, (jnp.zeros((b, width)), kept), jnp.arange(count))
    return values.swapaxes(0, 1).reshape(b, *shape)
