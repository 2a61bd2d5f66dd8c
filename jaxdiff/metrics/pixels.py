"""Similarity of pictures pixel by pixel, for reconstructions: PSNR and SSIM.

    PSNR = 10 log10(255^2 / mean (x - y)^2)
    SSIM = mean of (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2))

with local means, variances and covariance under a Gaussian window of 11 x 11 pixels and deviation 1.5, over the places
where the window fits; C1 = (0.01 x 255)^2, C2 = (0.03 x 255)^2. SSIM is taken of each colour and averaged.

Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", section III.
"""

import numpy as np
from jaxtyping import Float64, UInt8
from scipy.ndimage import gaussian_filter1d

_WINDOW = 11


def psnr(x: UInt8[np.ndarray, "n h w c"], y: UInt8[np.ndarray, "n h w c"]) -> Float64[np.ndarray, " n"]:
    """Returns the PSNR of each pair, in decibels; infinite where both are the same."""
    error = ((x.astype(np.float64) - y) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def ssim(x: UInt8[np.ndarray, "n h w c"], y: UInt8[np.ndarray, "n h w c"]) -> Float64[np.ndarray, " n"]:
    """Returns the structural similarity of each pair, at most 1.

    Raises:
      ValueError: if the pictures are smaller than the window.
    """
    if min(x.shape[1:3]) < _WINDOW:
        raise ValueError(f"pictures of {x.shape[2]}x{x.shape[1]} pixels: SSIM looks through {_WINDOW}x{_WINDOW}")
    a, b = x.astype(np.float64), y.astype(np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b, cov = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2, _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    like = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return like.mean(axis=(1, 2, 3))


def _blur(x: np.ndarray) -> np.ndarray:
    """Returns the windowed mean where the window fits."""
    edge = _WINDOW // 2
    for axis in (1, 2):
        x = gaussian_filter1d(x, 1.5, axis=axis, radius=edge)
    return x[:, edge:-edge, edge:-edge]
