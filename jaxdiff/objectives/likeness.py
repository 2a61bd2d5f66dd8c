"""Measures how near images are to others, as arrays on the device: `metrics.pixels` within a compiled program.

PSNR and SSIM are those of `metrics.pixels`, which has the formulas and the source, of pixels rounded to 8 bits.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

WINDOW = 11
"""Side of the window that SSIM looks through."""


def psnr(x: UInt8[Array, "b h w c"], y: UInt8[Array, "b h w c"]) -> Float[Array, " b"]:
    """Returns the peak signal-to-noise ratio of each pair in dB, at most 100."""
    error = ((x.astype(jnp.float32) - y.astype(jnp.float32)) ** 2).mean((1, 2, 3))
    return 10 * jnp.log10(255**2 / jnp.maximum(error, 255**2 * 1e-10))


def ssim(x: UInt8[Array, "b h w c"], y: UInt8[Array, "b h w c"]) -> Float[Array, " b"]:
    """Returns the structural similarity of each pair, at most 1; sides are at least `WINDOW`."""
    a, b = x.astype(jnp.float32) / 255, y.astype(jnp.float32) / 255
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b, cov = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2, _blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    like = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return like.mean((1, 2, 3))


def _blur(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """The mean under a Gaussian window of deviation 1.5, where it fits: two products with a band of its weights."""
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    h, w = (_band(weights, side) for side in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", h, x, w)


def _band(weights: np.ndarray, side: int) -> np.ndarray:
    rows = side - len(weights) + 1
    band = np.zeros((rows, side), np.float32)
    for i in range(rows):
        band[i, i : i + len(weights)] = weights
    return band


def moments(features: Float[Array, "b d"]) -> dict[str, Array]:
    """Returns mean [d] and second moment [d d] of features: means over examples, so that those of parts average."""
    return {"mean": features.mean(0), "second": features.T @ features / len(features)}
