"""Estimates of x0 kept in bounds, call by call, by numbers that a table carries.

A table for data in [-1, 1] may clip each estimate to [-limit, limit], or use dynamic thresholding (Saharia et al. 2022,
arXiv 2205.11487, section 2.3): with q a quantile of a picture's absolute values,

    s = min(max(q, 1), limit)        D <- min(max(D, -s), s) / s

Being numbers, another sampler's bounds compile nothing new. They are part of a table and not of the denoiser, because
some samplers take x0 from the bounded estimate and eps from the network's own.
"""

from typing import Any

import numpy as np

from jaxdiff.diffusion.continuous import namespace


def make(calls: int, clip: float | None, threshold: tuple[float, float] | None = None) -> dict[str, np.ndarray]:
    """Returns the bounds of every call [N]: `limit`, and for dynamic thresholding `quantile`.

    Raises:
      ValueError: for a limit that is not positive, or a quantile outside (0, 1].
    """
    if threshold is None:
        if clip is None or not clip > 0:
            raise ValueError(f"clip = {clip}: expected a positive number")
        return {"limit": np.full(calls, clip)}
    quantile, ceiling = threshold
    if not 0 < quantile <= 1 or not ceiling >= 1:
        raise ValueError(f"threshold = {threshold}: expected a quantile in (0, 1] and a limit of at least 1")
    return {"limit": np.full(calls, ceiling), "quantile": np.full(calls, quantile)}


def apply(x0: Any, bounds: dict[str, Any]) -> Any:
    """Returns the estimate x0 [b, ...] within one call's bounds."""
    xp, x0 = namespace(x0)
    limit = bounds["limit"]
    if "quantile" not in bounds:
        return xp.clip(x0, -limit, limit)
    s = xp.quantile(xp.abs(x0).reshape(x0.shape[0], -1), bounds["quantile"], axis=1)
    s = xp.clip(s, 1, limit).reshape((-1,) + (1,) * (x0.ndim - 1))
    return xp.clip(x0, -s, s) / s
