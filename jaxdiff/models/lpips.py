"""LPIPS: how different two pictures look, by the features of a classifier.

The features of five layers of AlexNet or VGG-16 are scaled to length 1 at each place; their squared differences are
weighed channel by channel by what people said of pairs of pictures, summed, and averaged over places.

Sources: Zhang et al. 2018, arXiv 1801.03924, equation 1 (version 0.1 of the weights); Krizhevsky 2014, arXiv 1404.5997;
Simonyan & Zisserman 2014, arXiv 1409.1556.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxdiff.nn.conv import Conv

MEAN = (-0.030, -0.088, -0.188)
STD = (0.458, 0.448, 0.450)
# number in the published file, channels, side of the window, stride, padding; "pool"; layers that are compared end in *
NETWORKS = {
    "alex": "0 64 11 4 2 *, pool 3, 3 192 5 1 2 *, pool 3, 6 384 3 1 1 *, 8 256 3 1 1 *, 10 256 3 1 1 *",
    "vgg": "0 64 3 1 1, 2 64 3 1 1 *, pool 2, 5 128 3 1 1, 7 128 3 1 1 *, pool 2, 10 256 3 1 1, 12 256 3 1 1, "
    "14 256 3 1 1 *, pool 2, 17 512 3 1 1, 19 512 3 1 1, 21 512 3 1 1 *, pool 2, 24 512 3 1 1, 26 512 3 1 1, "
    "28 512 3 1 1 *",
}


class Lpips(nn.Module):
    """The distance of each pair of pictures in [-1, 1]."""

    network: Literal["alex", "vgg"] = "alex"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
        b = len(x)
        h = (jnp.concatenate([x, y]) - jnp.array(MEAN)[None, None, None]) / jnp.array(STD)[None, None, None]
        total = jnp.zeros(b)
        level = 0
        for step in NETWORKS[self.network].split(", "):
            first, *numbers = step.removesuffix(" *").split()
            if first == "pool":
                side = int(numbers[0])
                h = nn.max_pool(h, (side, side), (2, 2))
                continue
            channels, side, stride, pad = map(int, numbers)
            around = ((pad, pad), (pad, pad))
            h = nn.relu(Conv(channels, side, stride, around, name=f"conv_{first}")(h))
            if step.endswith("*"):
                # bounded, since the gradient of a root is infinite at 0, which ReLU may give at every channel
                unit = h / (jnp.sqrt(jnp.maximum((h * h).sum(-1, keepdims=True), 1e-20)) + 1e-10)
                weight = self.param(f"weight_{level}", nn.initializers.ones, (channels,))
                total += ((unit[:b] - unit[b:]) ** 2 @ weight).mean((1, 2))
                level += 1
        return total


def prepare(pictures: UInt8[Array | np.ndarray, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """uint8 pictures in [-1, 1]."""
    return jnp.asarray(pictures).astype(jnp.float32) / 127.5 - 1
