"""EfficientNet-Lite0: a small ImageNet classifier without squeeze-and-excitation, whose activations are ReLU6.

Blocks (MBConv) widen x by a 1x1 convolution, filter each channel by itself, and narrow by another, added to x where the
shape is the same. Batch norms are folded into the convolutions (`pretrained.rules.features`).

Sources: Tan & Le 2019, arXiv 1905.11946, table 1; Liu 2020 (EfficientNet-Lite), of TensorFlow's model garden.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxdiff.nn.conv import conv

SIZE = 224
# blocks of a stage, side of the window, stride, factor of widening, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
WIDTHS = (*(str(channels) for *_, channels in STAGES), "1280")
MAPS, MAPS_UNIT = 5, 16  # stages whose maps are given, and what the last of them has halved sides by


class EfficientNetLite0(nn.Module):
    """The classifier, of pixels as `prepare` makes them: means over places after each stage by width, and `logits`.

    With `maps` it gives what each of the first `MAPS` stages makes of every place, by width; sides may then be any
    multiple of `MAPS_UNIT`.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], maps: bool = False) -> dict[str, Float[Array, "b ..."]]:
        out = {}
        x = Filter(32, 3, 2, name="stem")(x)
        number = 0
        for repeats, size, stride, factor, channels in STAGES[:MAPS] if maps else STAGES:
            for i in range(repeats):
                y, before = x, x.shape[-1]
                if factor > 1:
                    y = Filter(before * factor, 1, name=f"block_{number}_expand")(y)
                y = Filter(y.shape[-1], size, 1 if i else stride, each=True, name=f"block_{number}_depthwise")(y)
                y = Filter(channels, 1, relu=False, name=f"block_{number}_project")(y)
                x = x + y if y.shape == x.shape else y
                number += 1
            out[str(channels)] = x if maps else x.mean((1, 2))
        if maps:
            return out
        out["1280"] = Filter(1280, 1, name="head")(x).mean((1, 2))
        out["logits"] = nn.Dense(1000, name="fc")(out["1280"])
        return out


class Filter(nn.Module):
    """A convolution with a bias, then ReLU6: of all channels, or with `each`, of each by itself."""

    features: int
    size: int
    stride: int = 1
    each: bool = False
    relu: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        shape = (self.size, self.size, 1 if self.each else x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # as TensorFlow pads: output i begins at i stride, and an odd pixel of padding comes after
        total = max(self.size - self.stride, 0)
        pad = (total // 2, total - total // 2)
        y = _each(x, kernel, self.stride, pad) if self.each else conv(x, kernel, self.stride, (pad, pad))
        y = y + bias[None, None, None]
        return jnp.clip(y, 0, 6) if self.relu else y


def _each(x: Array, kernel: Array, stride: int, pad: tuple[int, int]) -> Array:
    """A convolution of each channel by itself, as a sum over the window: XLA's own takes far longer on a CPU."""
    size, places = kernel.shape[0], x.shape[1] // stride
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    ends = (places - 1) * stride + 1
    taps = [
        x[:, i : i + ends : stride, j : j + ends : stride] * kernel[i, j, 0][None, None, None]
        for i in range(size)
        for j in range(size)
    ]
    return sum(taps[1:], taps[0])


def prepare(pictures: UInt8[Array | np.ndarray, "b h w 3"]) -> Float[Array, "b 224 224 3"]:
    """Pictures scaled to 224 x 224, bicubic with antialiasing, and to about [-1, 1] as in its training."""
    x = jax.image.resize(jnp.asarray(pictures).astype(jnp.float32), (len(pictures), SIZE, SIZE, 3), "cubic")
    return (jnp.clip(x, 0, 255) - 127) / 128
