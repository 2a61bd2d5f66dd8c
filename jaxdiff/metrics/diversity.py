"""Diversity of the pictures of one set.

    diversity   the mean distance of two pictures' features
    Vendi       exp(-sum l log l), l the eigenvalues of K / n and K the cosines of features: an effective number of
                pictures, 1 if all are alike and n if all are orthogonal

Source: Friedman & Dieng 2023, arXiv 2210.02410, definition 3.1.
"""

import numpy as np
from jaxtyping import Float

from jaxdiff.metrics.neighbours import distances


def diversity(features: Float[np.ndarray, "n d"]) -> float:
    """Returns the mean Euclidean distance over all pairs.

    Raises:
      ValueError: for fewer than two pictures.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} picture: diversity is of pairs, it needs at least 2")
    n = len(features)
    total = sum(np.sqrt(np.maximum(d, 0)).sum() for _, d in distances(features, features))
    return float(total / (n * (n - 1)))


def vendi(features: Float[np.ndarray, "n d"]) -> float:
    """Returns the Vendi score, from 1 to the smaller of n and d."""
    x = features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    # the eigenvalues of the smaller of x x^T and x^T x, as squared singular values
    values = np.linalg.svd(x, compute_uv=False) ** 2 / len(x)
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))
