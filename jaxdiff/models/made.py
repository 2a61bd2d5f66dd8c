"""MADE: dense layers whose masks let each output see the inputs before it alone, in any order.

Input d has degree o(d), its place in the order; a hidden unit has a degree m between the least and the most, and sees
units of at most its own; output d sees hidden units of less than o(d) (equation 13). With degrees that are drawn the
masks differ from unit to unit; here they go round, so that every degree is there.

Source: Germain et al. 2015, arXiv 1502.03509, sections 3 and 4.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.models import ordered
from jaxdiff.models.config import check_dtype
from jaxdiff.models.ordered import OrderedConfig, Pick
from jaxdiff.typing import Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeConfig(OrderedConfig):
    """The numbers of a MADE.

    Attributes:
      hidden: units of each hidden layer.
      order: which part is the first, which the second and so on: a permutation of 0 .. parts - 1; (): row by row.
      dtype: dtype of the computation.
    """

    hidden: tuple[int, ...] = (512, 512)
    order: tuple[int, ...] = ()

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other."""
        check_dtype("made", self.dtype)
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"made: hidden is {self.hidden}: expected layers of 1 unit or more")
        check_order(self.order, len(self.order))

    def make(self, shape: tuple[int, ...], groups: int, outputs: int, classes: int) -> nn.Module:
        """Makes the network."""
        if self.order:
            check_order(self.order, shape[0] * shape[1] * groups)
        return Made(self, shape, groups, outputs, classes)

    def sample(
        self, module: Any, params: Params, keys: Key, label: Any, shape: tuple[int, ...], pick: Pick
    ) -> Float[Array, "b h w c"]:
        """Draws pictures, a call of the network a part: a dense layer leaves nothing to keep."""
        return ordered.draw(module, params, keys, label, shape, pick, np.argsort(module.places()))


Config = MadeConfig


def check_order(order: Sequence[int], parts: int) -> None:
    """Refuses an order that is no permutation of 0 .. parts - 1."""
    if sorted(order) != [*range(parts)]:
        shown = ", ".join(map(str, [*order][:10])) + (", ..." if len(order) > 10 else "")
        raise ValueError(f"made: order is ({shown}): expected each of 0 to {parts - 1} once, the part that comes first")


def masks(places: np.ndarray, hidden: Sequence[int], inputs: int, outputs: int) -> list[np.ndarray]:
    """Returns the mask [i o] of each layer.

    Args:
      places: places of each part in the order, 0 the first.
      hidden: units of each hidden layer.
      inputs: numbers that a part has.
      outputs: numbers that are said of a part.
    """
    most = max(len(places) - 1, 1)
    degrees = [places, *(np.arange(units) % most for units in hidden)]
    found = [before[:, None] <= after[None] for before, after in itertools.pairwise(degrees)]
    found[0] = np.repeat(found[0], inputs, 0)
    return [*found, np.repeat(degrees[-1][:, None] < places[None], outputs, 1)]


class Made(nn.Module):
    """The network of a `MadeConfig`."""

    config: MadeConfig
    shape: tuple[int, ...]
    groups: int
    outputs: int
    classes: int = 0

    def places(self) -> np.ndarray:
        """Returns the place of each part in the order."""
        parts = self.shape[0] * self.shape[1] * self.groups
        return np.argsort(self.config.order) if self.config.order else np.arange(parts)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], label: Any = None) -> Float[Array, "b h w o"]:
        net, y = self.config, x.reshape(x.shape[0], -1).astype(self.config.dtype)
        layers = masks(self.places(), net.hidden, self.shape[-1] // self.groups, self.outputs)
        for i, mask in enumerate(layers):
            kernel = self.param(f"kernel_{i}", nn.initializers.lecun_normal(), mask.shape)
            y = y @ (kernel * mask).astype(net.dtype)
            y = y + self.param(f"bias_{i}", nn.initializers.zeros, mask.shape[1:]).astype(net.dtype)[None]
            if self.classes:
                bias = self.param(f"class_{i}", nn.initializers.zeros, (self.classes, mask.shape[1]))
                y = y + bias.astype(net.dtype)[label]
            y = jax.nn.relu(y) if i + 1 < len(layers) else y
        return y.reshape(x.shape[0], *self.shape[:2], -1).astype(jnp.float32)
