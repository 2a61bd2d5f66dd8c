"""Gated PixelCNN: two stacks of masked convolutions, a pixel sees all pixels above it and to its left, and no other.

The vertical stack v sees the rows above, the horizontal stack h the pixels to the left in its row, and what v says:

    v_0 = x a row up, h_0 = x;    p = conv_v(v),    q = conv_h(h) + link(p),    v <- gate(p),    h <- h + out(gate(q))

with gate(a, b) = tanh(a) sigmoid(b). conv_v covers r + 1 rows that end with its own and 2 r + 1 columns, conv_h the r
pixels before and the pixel itself. In the pixel itself the channels of x come one after another: units and outputs are
`groups` parts, of which part g sees channels before g in the first layer (mask A) and units of parts up to g after it
(mask B). The first layer adds nothing to h, which would let channels through.

Drawn, the same convolutions run on windows: v on whole rows, once each, h on a pixel; the rows and pixels before are
kept. So the time is linear in the number of pixels.

Sources: van den Oord et al. 2016, arXiv 1606.05328, section 2 and figure 2; 1601.06759, section 3.4 (channels).
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
from jaxdiff.nn.conv import conv
from jaxdiff.typing import Key, Params

NO_PAD = ((0, 0), (0, 0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelCNNConfig(OrderedConfig):
    """The numbers of a Gated PixelCNN.

    Attributes:
      width: units of a stack; they divide into a part for each channel.
      layers: that are gated.
      reach: r, pixels that a layer looks back.
      head: units of the layer before the outputs, which divide as `width` does.
      dtype: dtype of the computation; outputs are float32.
    """

    width: int = 120
    layers: int = 8
    reach: int = 2
    head: int = 240

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other."""
        check_dtype("pixelcnn", self.dtype)
        for name in ("width", "layers", "reach", "head"):
            if getattr(self, name) < 1:
                raise ValueError(f"pixelcnn: {name} is {getattr(self, name)}: expected 1 or more")

    def make(self, shape: tuple[int, ...], groups: int, outputs: int, classes: int) -> nn.Module:
        """Makes the network, refusing units that do not divide into the parts."""
        for name in ("width", "head"):
            if getattr(self, name) % groups:
                raise ValueError(
                    f"pixelcnn: {name} is {getattr(self, name)}, which does not divide into parts for "
                    f"{groups} channels: choose a multiple of {groups}"
                )
        return PixelCNN(self, shape[-1], groups, outputs, classes)

    def sample(
        self, module: Any, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick
    ) -> Float[Array, "b h w c"]:
        """Draws pictures, keeping what both stacks said of earlier pixels."""
        return sample(module, params, keys, label, shape, pick)


Config = PixelCNNConfig


def mask(inputs: int, outputs: int, groups: int, strict: bool) -> np.ndarray:
    """Returns the mask [inputs outputs] of a pixel: part g sees input parts before g, and g unless `strict`."""
    before, after = (np.arange(n) * groups // n for n in (inputs, outputs))
    return before[:, None] < after[None] if strict else before[:, None] <= after[None]


def gate(x: Float[Array, "*s c"], groups: int) -> Float[Array, "*s d"]:
    """Returns tanh(a) sigmoid(b) of the halves of each part."""
    a, b = jnp.split(x.reshape(*x.shape[:-1], groups, -1), 2, -1)
    return (jnp.tanh(a) * jax.nn.sigmoid(b)).reshape(*x.shape[:-1], -1)


class Masked(nn.Module):
    """A convolution without padding, whose last tap of the last row is masked: `kind` is none, A (strict) or B."""

    features: int
    size: tuple[int, int]
    groups: int
    kind: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (*self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.kind != "none":
            kernel = kernel.at[-1, -1].multiply(mask(x.shape[-1], self.features, self.groups, self.kind == "A"))
        return (
            conv(x.astype(self.dtype), kernel.astype(self.dtype), 1, NO_PAD) + bias.astype(self.dtype)[None, None, None]
        )


class Layer(nn.Module):
    """One gated layer, on windows: the caller pads a whole picture, or gives what it has kept."""

    config: PixelCNNConfig
    groups: int
    classes: int
    first: bool

    def setup(self) -> None:
        net, r = self.config, self.config.reach
        own = lambda size, kind: Masked(2 * net.width, size, self.groups, kind, net.dtype)
        self.conv_v, self.link = own((r + 1, 2 * r + 1), "none"), own((1, 1), "none")
        self.conv_h = own((1, r + 1), "A" if self.first else "B")
        self.out = Masked(net.width, (1, 1), self.groups, "B", net.dtype)
        if self.classes:
            self.label = nn.Embed(self.classes, 4 * net.width, embedding_init=nn.initializers.zeros)

    def vertical(self, window: Float[Array, "b i j c"], label: Any) -> tuple[Array, Array]:
        """Returns v, and what h gets of it, of windows of r more rows and 2 r more columns."""
        p = self.conv_v(window)
        label_term = (
            self.label(label)[:, None, None].astype(p.dtype) if self.classes else jnp.zeros((1, 1, 1, 1), p.dtype)
        )
        of_v, of_h = jnp.split(label_term, 2, -1) if self.classes else (label_term, label_term)
        return gate(p + of_v, 1), self.link(p) + of_h

    def horizontal(self, window: Float[Array, "b i j c"], term: Float[Array, "b i k o"]) -> Array:
        """Returns h of windows of r more columns."""
        y = self.out(gate(self.conv_h(window) + term, self.groups))
        return y if self.first else y + window[:, :, self.config.reach :]


class PixelCNN(nn.Module):
    """The network of a `PixelCNNConfig`."""

    config: PixelCNNConfig
    channels: int
    groups: int
    outputs: int
    classes: int = 0

    def setup(self) -> None:
        net = self.config
        self.layers = [Layer(net, self.groups, self.classes, i == 0) for i in range(net.layers)]
        self.head = Masked(net.head, (1, 1), self.groups, "B", net.dtype)
        self.last = Masked(self.groups * self.outputs, (1, 1), self.groups, "B", net.dtype)

    def __call__(self, x: Float[Array, "b h w c"], label: Any = None) -> Float[Array, "b h w o"]:
        r = self.config.reach
        v, h = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1], x
        for layer in self.layers:
            v, term = layer.vertical(jnp.pad(v, ((0, 0), (r, 0), (r, r), (0, 0))), label)
            h = layer.horizontal(jnp.pad(h, ((0, 0), (0, 0), (r, 0), (0, 0))), term)
        return self.read(h)

    def read(self, h: Float[Array, "b i j c"]) -> Float[Array, "b i j o"]:
        """Returns the outputs."""
        return self.last(jax.nn.relu(self.head(jax.nn.relu(h)))).astype(jnp.float32)

    def row(self, above: list[Array], x: Float[Array, "b 1 w c"], label: Any) -> tuple[list[Array], list[Array]]:
        """Returns what is kept of v, and what each layer tells h, of the row below x; `above` is what was kept."""
        r, kept, tells, v = self.config.reach, [], [], x
        for layer, rows in zip(self.layers, above, strict=True):
            window = jnp.concatenate([rows, jnp.pad(v, ((0, 0), (0, 0), (r, r), (0, 0)))], 1)
            v, term = layer.vertical(window, label)
            kept.append(window[:, 1:])
            tells.append(term)
        return kept, tells

    def pixel(self, before: list[Array], x: Float[Array, "b 1 1 c"], tells: list[Array]) -> tuple[list[Array], Array]:
        """Returns what is kept of h, and the outputs, of a pixel whose first channels are known."""
        kept, h = [], x
        for layer, pixels, term in zip(self.layers, before, tells, strict=True):
            window = jnp.concatenate([pixels, h], 2)
            h = layer.horizontal(window, term)
            kept.append(window[:, :, 1:])
        return kept, self.read(h)


def sample(
    module: PixelCNN, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick
) -> Float[Array, "b h w c"]:
    """Draws pictures, as `ordered.draw` does: one scan over rows, within which one over the pixels of a row."""
    (h, w, c), b, net, groups = shape, keys.shape[0], module.config, module.groups
    apply: Any = lambda method, *args: module.apply({"params": params}, *args, method=method)
    widths, width = [c] + [net.width] * (net.layers - 1), c // groups
    rows_above = [jnp.zeros((b, net.reach, w + 2 * net.reach, n), net.dtype) for n in widths]
    pixels_before = [jnp.zeros((b, 1, net.reach, n), net.dtype) for n in widths]

    def row(state: tuple[list[Array], Array], i: Array) -> tuple[Any, Array]:
        above, last = state
        above, tells = apply("row", above, last, label)

        def pixel(before: list[Array], given: tuple[Array, list[Array]]) -> tuple[list[Array], Array]:
            j, term = given
            x, kept = jnp.zeros((b, c), net.dtype), before
            for g in range(groups):
                kept, out = apply("pixel", before, x[:, None, None], [one[:, None, None] for one in term])
                own = out.reshape(b, groups, -1)[:, g]
                at = (i * w + j) * groups + g
                value = jax.vmap(lambda key, o, at=at: pick(jax.random.fold_in(key, at), o))(keys, own)
                x = x.at[:, g * width : (g + 1) * width].set(value.astype(x.dtype))
            kept[0] = kept[0].at[:, 0, -1].set(x)  # the first layer saw it before its last channels were known
            return kept, x

        by_pixel = [term[:, 0].swapaxes(0, 1) for term in tells]
        _, pixels = jax.lax.scan(pixel, pixels_before, (jnp.arange(w), by_pixel))
        pixels = pixels.swapaxes(0, 1)[:, None]
        return (above, pixels), pixels[:, 0]

    _, rows = jax.lax.scan(row, (rows_above, jnp.zeros((b, 1, w, c), net.dtype)), jnp.arange(h))
    return rows.swapaxes(0, 1).astype(jnp.float32)
