"""PixelRNN: an LSTM that runs down the rows of a picture (Row LSTM), or along its diagonals (Diagonal BiLSTM).

With x what goes into a layer, K_is its input-to-state and K_ss its state-to-state convolution,

    o, f, i = sigmoid, g = tanh of K_ss * h_before + K_is * x
    c = f c_before + i g,    h = o tanh(c),    x <- x + W h

Row: h_before is the row above, K_ss covers three columns, K_is r pixels to the left and the pixel. Diagonal: row i is
moved i to the right, so that a column holds what lies on a diagonal; h_before is the column before, of which K_ss
covers the same row and the one above: the pixels to the left and above. The same runs from the right, and its h is
moved a row down, so that it tells of rows above alone; it reads the picture too, whose last channel x may not. What
comes first is a convolution of the pixels to the left, and of the row above. In the pixel itself channels come one
after another, by the masks A and B of `pixelcnn`.

Drawn, the Row LSTM keeps its states of the row above, so that its time is linear in the rows.

Source: van den Oord et al. 2016, arXiv 1601.06759, sections 3.1 to 3.4, equation 3.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.models import ordered
from jaxdiff.models.config import check_dtype
from jaxdiff.models.ordered import OrderedConfig, Pick
from jaxdiff.models.pixelcnn import Masked
from jaxdiff.typing import Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelRNNConfig(OrderedConfig):
    """The numbers of a PixelRNN.

    Attributes:
      family: which way the LSTM runs.
      width: units of a layer; they divide into a part for each channel.
      layers: LSTMs.
      reach: r, pixels that convolutions of inputs look back.
      head: units of the layer before the outputs, which divide as `width` does.
      dtype: dtype of the convolutions; states and outputs are float32.
    """

    family: Literal["row", "diagonal"] = "row"
    width: int = 48
    layers: int = 3
    reach: int = 2
    head: int = 96

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other."""
        check_dtype("pixelrnn", self.dtype)
        for name in ("width", "layers", "reach", "head"):
            if getattr(self, name) < 1:
                raise ValueError(f"pixelrnn: {name} is {getattr(self, name)}: expected 1 or more")

    def make(self, shape: tuple[int, ...], groups: int, outputs: int, classes: int) -> nn.Module:
        """Makes the network, refusing units that do not divide into the parts."""
        for name in ("width", "head"):
            if getattr(self, name) % groups:
                raise ValueError(
                    f"pixelrnn: {name} is {getattr(self, name)}, which does not divide into parts for {groups} "
                    f"channels: choose a multiple of {groups}"
                )
        return PixelRNN(self, groups, outputs, classes)

    def sample(
        self, module: Any, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick
    ) -> Float[Array, "b h w c"]:
        """Draws pictures: of rows with what is kept, along diagonals by the whole network for each part."""
        if self.family == "row":
            return sample(module, params, keys, label, shape, pick)
        order = np.arange(shape[0] * shape[1] * module.groups)
        return ordered.draw(module, params, keys, label, shape, pick, order)


Config = PixelRNNConfig


def skew(x: Float[Array, "b h w c"]) -> Float[Array, "b h v c"]:
    """Returns rows moved to the right by their number, [b h (w + h - 1) c]."""
    b, h, w, c = x.shape
    wide = jnp.pad(x, ((0, 0), (0, 0), (0, h), (0, 0))).reshape(b, h * (w + h), c)
    return wide[:, : h * (w + h - 1)].reshape(b, h, w + h - 1, c)


def unskew(x: Float[Array, "b h v c"]) -> Float[Array, "b h w c"]:
    """Returns rows moved back."""
    b, h, v, c = x.shape
    wide = jnp.pad(x.reshape(b, h * v, c), ((0, 0), (0, h), (0, 0))).reshape(b, h, v + 1, c)
    return wide[:, :, : v + 1 - h]


State = tuple[Array, Array]
"""h and c, [b n width]."""


class Lstm(nn.Module):
    """An LSTM over an axis of maps; `taps` are where in the line before a state looks, 0 its own place."""

    width: int
    groups: int
    taps: tuple[int, ...]

    def setup(self) -> None:
        init = nn.initializers.variance_scaling(1 / len(self.taps), "fan_in", "truncated_normal", (1,), (2,), (0,))
        self.kernel = self.param("kernel", init, (len(self.taps), self.width, 4 * self.width))

    def __call__(self, inputs: Float[Array, "b n m o"]) -> Float[Array, "b n m c"]:
        """Returns h of each line n, of m places, one after another; `inputs` is what K_is says."""
        lines = inputs.swapaxes(0, 1)
        kernel = self.kernel
        _, h = jax.lax.scan(lambda state, line: self._cell(kernel, state, line), self.start(lines[0]), lines)
        return h.swapaxes(0, 1)

    def start(self, line: Float[Array, "b m o"]) -> State:
        """Returns the state before the first line."""
        zero = jnp.zeros((*line.shape[:2], self.width))
        return zero, zero

    def line(self, state: State, inputs: Float[Array, "b m o"]) -> tuple[State, Array]:
        """Returns the state after a line, and its h."""
        return self._cell(self.kernel, state, inputs)

    def _cell(self, kernel: Array, state: State, inputs: Array) -> tuple[State, Array]:
        h, c = state
        gates = inputs
        for n, tap in enumerate(self.taps):
            ahead, behind = max(tap, 0), max(-tap, 0)
            moved = jnp.pad(h, ((0, 0), (behind, ahead), (0, 0)))[:, ahead : ahead + h.shape[1]]
            gates = gates + moved @ kernel[n]
        parts = jnp.split(gates.reshape(*gates.shape[:2], self.groups, -1), 4, -1)
        o, f, i, g = (part.reshape(h.shape) for part in parts)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h


class Layer(nn.Module):
    """One LSTM of either family, with what goes in added to what comes out."""

    config: PixelRNNConfig
    groups: int
    classes: int

    def setup(self) -> None:
        net = self.config
        row = net.family == "row"
        own = lambda features, size, kind: Masked(features, size, self.groups, kind, net.dtype)
        self.reach = net.reach if row else 0
        self.told = own(4 * net.width, (1, self.reach + 1), "B")
        self.lstm = Lstm(net.width, self.groups, (-1, 0, 1) if row else (0, -1))
        self.out = own(net.width, (1, 1), "B")
        if not row:
            self.told_back, self.lstm_back = own(4 * net.width, (1, 1), "none"), Lstm(net.width, 1, (0, -1))
        if self.classes:
            self.label = nn.Embed(self.classes, 4 * net.width, embedding_init=nn.initializers.zeros)

    def inputs(self, x: Float[Array, "b h w c"], label: Any) -> Float[Array, "b h w o"]:
        """Returns what K_is says, and of the class."""
        projected = self.told(jnp.pad(x, ((0, 0), (0, 0), (self.reach, 0), (0, 0)))).astype(jnp.float32)
        return projected + self.label(label)[:, None, None] if self.classes else projected

    def __call__(
        self, x: Float[Array, "b h w c"], label: Any, seen: Float[Array, "b h w k"]
    ) -> Float[Array, "b h w c"]:
        projected = self.inputs(x, label)
        if self.config.family == "row":
            return x + self.out(self.lstm(projected))
        along = lambda lstm, projected: unskew(lstm(skew(projected).swapaxes(1, 2)).swapaxes(1, 2))
        back = self.told_back(jnp.concatenate([x, seen], -1)).astype(jnp.float32)[:, :, ::-1]
        above = along(self.lstm_back, back)[:, :, ::-1]
        return x + self.out(along(self.lstm, projected) + jnp.pad(above, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1])

    def line(self, state: State, x: Float[Array, "b 1 w c"], label: Any) -> tuple[State, Array]:
        """Returns the state after a row, and what comes out of it."""
        state, h = self.lstm.line(state, self.inputs(x, label)[:, 0])
        return state, x + self.out(h[:, None])


class PixelRNN(nn.Module):
    """The network of a `PixelRNNConfig`."""

    config: PixelRNNConfig
    groups: int
    outputs: int
    classes: int = 0

    def setup(self) -> None:
        net, r = self.config, self.config.reach
        own = lambda features, size, kind: Masked(features, size, self.groups, kind, net.dtype)
        self.left, self.above = own(net.width, (1, r + 1), "A"), own(net.width, (1, 2 * r + 1), "none")
        self.layers = [Layer(net, self.groups, self.classes) for _ in range(net.layers)]
        self.head, self.last = own(net.head, (1, 1), "B"), own(self.groups * self.outputs, (1, 1), "B")

    def __call__(self, x: Float[Array, "b h w c"], label: Any = None) -> Float[Array, "b h w o"]:
        y = self._first(jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1], x)
        for layer in self.layers:
            y = layer(y, label, x)
        return self._read(y)

    def row(self, states: list[State], above: Array, x: Array, label: Any) -> tuple[list[State], Array]:
        """Returns the states after a row [b 1 w c] whose first parts are known, and its outputs."""
        y, after = self._first(above, x), []
        for layer, state in zip(self.layers, states, strict=True):
            state, y = layer.line(state, y, label)
            after.append(state)
        return after, self._read(y)

    def _first(self, above: Array, x: Array) -> Array:
        r = self.config.reach
        pad = lambda x, right: jnp.pad(x, ((0, 0), (0, 0), (r, right), (0, 0)))
        return self.left(pad(x, 0)) + self.above(pad(above, r))

    def _read(self, y: Array) -> Array:
        return self.last(jax.nn.relu(self.head(jax.nn.relu(y)))).astype(jnp.float32)


def sample(
    module: PixelRNN, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick
) -> Float[Array, "b h w c"]:
    """Draws pictures of a Row LSTM, as `ordered.draw` does: one scan over rows, within which one over their parts."""
    (h, w, c), b, groups = shape, keys.shape[0], module.groups
    width, net = c // groups, module.config

    def row(state: tuple[Any, Array], i: Array) -> tuple[Any, Array]:
        states, above = state
        run: Any = lambda x: module.apply({"params": params}, states, above, x, label, method="row")

        def part(x: Array, at: Array) -> tuple[Array, None]:
            out = run(x.reshape(b, 1, w, c))[1].reshape(b, w * groups, -1)[:, at]
            number = i * w * groups + at
            value = jax.vmap(lambda key, out: pick(jax.random.fold_in(key, number), out))(keys, out)
            return jax.lax.dynamic_update_slice(x, value.astype(x.dtype), (0, at * width)), None

        x, _ = jax.lax.scan(part, jnp.zeros((b, w * c)), jnp.arange(w * groups))
        x = x.reshape(b, 1, w, c)
        return (run(x)[0], x), x[:, 0]

    zero = jnp.zeros((b, w, net.width))
    start = ([(zero, zero)] * net.layers, jnp.zeros((b, 1, w, c)))
    _, rows = jax.lax.scan(row, start, jnp.arange(h))
    return rows.swapaxes(0, 1)
