"""Normalising flows of pictures, as chains of bijections: NICE, RealNVP, Glow, neural splines, MAF and IAF.

nice: additive couplings of checkerboards, then a scale for each number. realnvp: at each scale affine couplings of
checkerboards, a squeeze, affine couplings of channels, and half of the channels are done; the norm between is ActNorm,
or with norm 'batch' the paper's. glow: squeeze, then steps of ActNorm, a 1x1
convolution and a coupling of channels. spline: the same with splines. maf: autoregressive transforms, the order turned
around after each; iaf: their inverses, which are quick to draw from and slow to measure with.

Sources: Dinh et al. 2015, arXiv 1410.8516; Dinh et al. 2017, arXiv 1605.08803; Kingma and Dhariwal 2018, arXiv
1807.03039; Durkan et al. 2019, arXiv 1906.04032; Papamakarios et al. 2017, arXiv 1705.07057; Kingma et al. 2016, arXiv
1606.04934.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.models import bijectors, flow_layers, transforms
from jaxdiff.models.bijectors import Bijector
from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.models.made import Made, MadeConfig
from jaxdiff.models.transforms import Transform
from jaxdiff.nn.conv import Conv

ORDERED = ("maf", "iaf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowConfig(NetConfig):
    """The numbers of a flow.

    Attributes:
      family: which bijections follow each other.
      scales: times that a picture is squeezed and half of it is done (realnvp, glow, spline).
      steps: steps of each scale, or in all.
      width: units of the networks in couplings, or of the hidden layer of MADEs.
      bins: bins of splines.
      norm: between the couplings of realnvp; the others have ActNorm, or none.
      dtype: dtype of the networks; the rest is float32.
    """

    family: Literal["nice", "realnvp", "glow", "spline", "maf", "iaf"] = "glow"
    scales: int = 2
    steps: int = 4
    width: int = 64
    bins: int = 8
    norm: Literal["actnorm", "batch"] = "actnorm"

    def build(self) -> nn.Module:
        """Makes the network of an affine coupling of three channels."""
        return CouplingNet(self.width, 6, self.dtype)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures that cannot be halved so often."""
        check_dtype("flow", self.dtype)
        for name in ("scales", "steps", "width", "bins"):
            if getattr(self, name) < 1:
                raise ValueError(f"flow: {name} is {getattr(self, name)}: expected 1 or more")
        if self.bins > 100:
            raise ValueError(f"flow: bins is {self.bins}: expected at most 100")
        if self.norm == "batch" and self.family != "realnvp":
            raise ValueError(
                f"flow: norm is 'batch' and family {self.family!r}: batch norm is realnvp's, choose actnorm"
            )
        scales = 0 if self.family in ("nice", *ORDERED) else self.scales
        if any(side % 2**scales for side in sides):
            raise ValueError(
                f"flow: a picture of {'x'.join(map(str, sides))} does not halve {scales} times: choose sides that are "
                f"multiples of {2**scales}, or fewer scales"
            )

    @property
    def transform(self) -> Transform:
        """Returns the function of each number that a coupling moves."""
        if self.family == "nice":
            return transforms.additive()
        return transforms.spline(self.bins) if self.family == "spline" else transforms.affine()

    def bijector(self, shape: tuple[int, ...]) -> Bijector:
        """Returns the flow of pictures of a shape (h, w, c), to numbers [b d]."""
        if self.family in ORDERED:
            return bijectors.chain([*self._ordered(shape), ("flat", bijectors.flat(shape))])
        if self.family == "nice":
            steps = [(f"coupling_{i}", self.checkerboard(shape, i)) for i in range(self.steps)]
            return bijectors.chain([*steps, ("scale", flow_layers.scaling()), ("flat", bijectors.flat(shape))])
        return self._scale(shape, 0)

    def _ordered(self, shape: tuple[int, ...]) -> list[tuple[str, Bijector]]:
        parts, d = [], int(np.prod(shape))
        for i in range(self.steps):
            order = np.arange(d)[:: 1 if i % 2 == 0 else -1]
            net = MadeConfig(hidden=(self.width,), order=tuple(order.tolist()), dtype=self.dtype)
            module = Quiet(Made(net, shape, shape[-1], self.transform.outputs))
            step = flow_layers.autoregressive(module, order, self.transform)
            step = bijectors.swapped(step) if self.family == "iaf" else step
            parts += [(f"norm_{i}", flow_layers.actnorm()), (f"step_{i}", step)]
        return parts

    def _scale(self, shape: tuple[int, ...], at: int) -> Bijector:
        (h, w, c), realnvp = shape, self.family == "realnvp"
        squeezed, parts = (h // 2, w // 2, 4 * c), []
        norm = flow_layers.batch_norm if self.norm == "batch" else flow_layers.actnorm
        for i in range(self.steps if realnvp else 0):
            parts += [(f"norm_{i}", norm()), (f"checkers_{i}", self.checkerboard(shape, i))]
        parts.append(("squeeze", bijectors.squeeze()))
        for i in range(self.steps):
            parts.append((f"channel_norm_{i}", norm()))
            if not realnvp:
                parts.append((f"mix_{i}", flow_layers.invertible_1x1(4 * c, 1000 * at + i)))
            parts.append((f"channels_{i}", self._channels(squeezed, i if realnvp else 0)))
        last = at + 1 == self.scales
        half = (h // 2, w // 2, 2 * c)
        rest = bijectors.flat(half) if last else self._scale(half, at + 1)
        return bijectors.factored(bijectors.chain(parts), squeezed, rest)

    def checkerboard(self, shape: tuple[int, ...], turn: int) -> Bijector:
        """Returns a coupling of squares of one colour, by those of the other."""
        rows, columns = np.indices(shape[:2])
        mask = np.broadcast_to(((rows + columns + turn) % 2)[..., None], shape)
        return self._coupling(mask)

    def _channels(self, shape: tuple[int, ...], turn: int) -> Bijector:
        return self._coupling(np.broadcast_to((np.arange(shape[-1]) < shape[-1] // 2) != turn % 2, shape))

    def _coupling(self, mask: np.ndarray) -> Bijector:
        net = CouplingNet(self.width, mask.shape[-1] * self.transform.outputs, self.dtype)
        return flow_layers.coupling(net, mask, self.transform)


Config = FlowConfig


class CouplingNet(nn.Module):
    """Three convolutions, the last from zero weights."""

    width: int
    outputs: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], cond: Any = None) -> Float[Array, "b h w o"]:
        if cond is not None:
            x = jnp.concatenate([x, jnp.broadcast_to(cond, (*x.shape[:3], cond.shape[-1]))], -1)
        x = jax.nn.relu(Conv(self.width, 3, dtype=self.dtype, name="conv_in")(x))
        x = jax.nn.relu(Conv(self.width, 1, dtype=self.dtype, name="conv_mid")(x))
        return Conv(self.outputs, 3, zero=True, dtype=self.dtype, name="conv_out")(x).astype(jnp.float32)


class Quiet(nn.Module):
    """A network whose outputs start near 0."""

    net: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        y = self.net(x)
        return y * self.param("gain", nn.initializers.constant(0.1), (y.shape[-1],))[None, None, None]
