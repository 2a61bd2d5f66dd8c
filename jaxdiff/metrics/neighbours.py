"""Fidelity and variety apart, by nearest neighbours: precision and recall, density and coverage.

A set's manifold is the union of the balls about its pictures' features that reach to their k-th neighbour in the set.

    precision   part of the made pictures inside the real manifold
    recall      part of the real pictures inside the made manifold
    density     how many real balls a made picture lies in, over k
    coverage    part of the real balls that hold a made picture

Sources: Kynkaanniemi et al. 2019, arXiv 1904.06991, section 2 (k = 3 there); Naeem et al. 2020, arXiv 2002.09797,
equations 3 to 5.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_ROWS = 1024  # of distances held at once


class Neighbours(NamedTuple):
    """All but density lie in [0, 1]; density is 1 for sets that are alike."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbours(real: Float[np.ndarray, "n d"], generated: Float[np.ndarray, "m d"], k: int = 5) -> Neighbours:
    """Returns the four numbers of a generated set against a real one.

    Raises:
      ValueError: if a set has no k-th neighbour.
    """
    if not 1 <= k < min(len(real), len(generated)):
        raise ValueError(
            f"{len(real)} real and {len(generated)} made pictures, k = {k}: expected at least {k + 1} pictures in each "
            "set"
        )
    real_radii, made_radii = (_radii(x, k) for x in (real, generated))
    balls = np.zeros(len(generated), np.int64)
    recalled, nearest = [], []
    for rows, d in distances(real, generated):
        balls += (d <= real_radii[rows, None]).sum(axis=0)
        recalled.append((d <= made_radii).any(axis=1))
        nearest.append(d.min(axis=1))
    return Neighbours(
        precision=float((balls > 0).mean()),
        recall=float(np.concatenate(recalled).mean()),
        density=float(balls.mean() / k),
        coverage=float((np.concatenate(nearest) <= real_radii).mean()),
    )


def distances(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Returns squared distances [rows, m], some rows of `a` at a time."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = (b**2).sum(axis=1)
    for first in range(0, len(a), _ROWS):
        x = a[first : first + _ROWS]
        yield slice(first, first + len(x)), (x**2).sum(axis=1)[:, None] + lengths - 2 * x @ b.T


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Returns squared distance of each row to its k-th neighbour."""
    radii = []
    for rows, d in distances(x, x):
        np.fill_diagonal(d[:, rows], np.inf)  # not its own neighbour
        radii.append(np.partition(d, k - 1, axis=1)[:, k - 1])
    return np.concatenate(radii)
