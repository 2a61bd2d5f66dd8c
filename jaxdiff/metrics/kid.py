"""The kernel Inception distance: the squared maximum mean discrepancy of two sets of features, without bias.

With k(x, y) = (x.y / d + 1)^3 for d features,

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j).

It has no least number of pictures, and may come out a little below zero where the sets are alike.

Source: Binkowski et al. 2018, arXiv 1801.01401, section 4.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Kid(NamedTuple):
    """The mean over random subsets, and their standard deviation."""

    mean: float
    deviation: float


def polynomial_mmd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Returns MMD^2 of all pictures, with the cubic kernel.

    Raises:
      ValueError: for fewer than two pictures in a set.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} and {len(y)} pictures: the distance without bias needs at least 2 of each")
    x, y = x.astype(np.float64), y.astype(np.float64)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        k = kernel(a, a)
        return (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def kid(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], subsets: int = 100, size: int = 1000, seed: int = 0
) -> Kid:
    """Returns MMD^2 over random subsets, as it is published.

    Args:
      x: features of one set.
      y: features of the other.
      subsets: how many.
      size: pictures of each set in a subset; all where there are fewer.
      seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    size = min(size, len(x), len(y))
    draws = [
        polynomial_mmd(x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)])
        for _ in range(subsets)
    ]
    return Kid(float(np.mean(draws)), float(np.std(draws)))
