"""Critics of whole pictures: DCGAN's convolutions or residual blocks, spectral norm, and a projection of the class.

With W a layer's weights as a matrix and u, v near its first singular vectors, W / (u W v) is used. One power iteration
a call moves u, a variable of the collection `spectral`; it is kept where that collection is not mutable.

    d(x, c) = w h(x) + e(c) h(x)

Sources: Radford et al. 2016, arXiv 1511.06434 (DCGAN); Miyato et al. 2018, arXiv 1802.05957 (spectral norm, blocks);
Miyato and Koyama 2018, arXiv 1802.05637 (projection).
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.nn.conv import conv

AROUND = {1: ((0, 0), (0, 0)), 3: ((1, 1), (1, 1)), 4: ((1, 1), (1, 1))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticConfig(NetConfig):
    """The numbers of a critic.

    Attributes:
      family: family of the layers.
      width: channels of the first layer; each further one doubles them, up to eight times.
      halvings: halvings of the resolution; what is left is summed over (resnet) or read whole (dcgan).
      spectral: whether weights are divided by their spectral norm.
      dtype: dtype of the computation; logits are float32.
    """

    family: Literal["dcgan", "resnet"] = "dcgan"
    width: int = 64
    halvings: int = 3
    spectral: bool = True

    def build(self) -> nn.Module:
        """Makes the network of pictures without classes."""
        return Critic(self)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures that cannot be halved so often."""
        check_halvings("critic", self, *sides)


Config = CriticConfig


def check_halvings(name: str, net: Any, *sides: int) -> None:
    """Refuses what is wrong with a network of halvings or doublings; `name` is its name."""
    check_dtype(name, net.dtype)
    for field in ("width", "halvings"):
        if getattr(net, field) < 1:
            raise ValueError(f"{name}: {field} is {getattr(net, field)}: expected 1 or more")
    if any(side % 2**net.halvings or side < 2**net.halvings for side in sides):
        raise ValueError(
            f"{name}: a picture of {'x'.join(map(str, sides))} does not halve {net.halvings} times: choose sides that "
            f"are multiples of {2**net.halvings}, or fewer halvings"
        )


class Normed(nn.Module):
    """A convolution, or on vectors a dense layer, divided by its spectral norm where that is asked for."""

    features: int
    size: int = 3
    stride: int = 1
    spectral: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *t o"]:
        picture = x.ndim == 4
        shape = (*(self.size,) * (2 * picture), x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_normal(), shape)
        if self.spectral:
            kernel = kernel / self._norm(kernel.reshape(-1, self.features))
        kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
        y = conv(x, kernel, self.stride, AROUND[self.size]) if picture else x @ kernel
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y + bias.reshape(*[1] * (x.ndim - 1), -1)

    def _norm(self, matrix: Float[Array, "i o"]) -> Float[Array, ""]:
        """Returns u W v, after one power iteration, whose vectors are not differentiated."""
        first = lambda: jax.random.normal(self.make_rng("params"), (self.features,))
        u = self.variable("spectral", "u", first)
        fixed = jax.lax.stop_gradient(matrix)
        v = _one(fixed @ u.value)
        after = _one(v @ fixed)
        if self.is_mutable_collection("spectral"):
            u.value = after
        return v @ matrix @ after


def _one(x: Array) -> Array:
    return x / (jnp.linalg.norm(x) + 1e-12)


class Critic(nn.Module):
    """The network of a `CriticConfig`: pictures in [-1, 1] to logits [b], high for real ones; [b k] of k `kinds`."""

    config: CriticConfig
    classes: int = 0
    kinds: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], label: Any = None) -> Float[Array, " b *k"]:
        net = self.config
        layer = lambda features, name, **how: Normed(features, spectral=net.spectral, dtype=net.dtype, name=name, **how)
        half = lambda x: x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
        for i in range(net.halvings):
            width = net.width * min(2**i, 8)
            if net.family == "dcgan":
                x = jax.nn.leaky_relu(layer(width, f"conv_{i}", size=4, stride=2)(x), 0.2)
                continue
            y = layer(width, f"conv1_{i}")(jax.nn.relu(x) if i else x)
            y = half(layer(width, f"conv2_{i}")(jax.nn.relu(y)))
            x = y + layer(width, f"skip_{i}", size=1)(half(x))
        h = x.reshape(x.shape[0], -1) if net.family == "dcgan" else jax.nn.relu(x).sum((1, 2))
        if self.kinds:
            return layer(self.kinds, "out")(h).astype(jnp.float32)
        logits = layer(1, "out")(h)[:, 0]
        if self.classes:
            classes = self.param("classes", nn.initializers.normal(0.05), (self.classes, h.shape[-1]))
            logits = logits + (classes[label].astype(h.dtype) * h).sum(1)
        return logits.astype(jnp.float32)
