"""How well pictures show their captions, on the vectors of a CLIP model.

    score         100 max(0, cos(picture, caption)) of each pair
    R-precision   how often a picture's own caption is nearest among R, the others drawn at random

Sources: Hessel et al. 2021, arXiv 2104.08718, equation 1, with the factor 100 that is reported for pictures from text;
Park et al. 2021, "Benchmark for compositional text-to-image synthesis", section 3.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64


def clip_score(pictures: Float[np.ndarray, "n d"], captions: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    """The score of each pair, 0 to 100."""
    return 100 * np.maximum((_unit(pictures) * _unit(captions)).sum(axis=1), 0)


def r_precision(
    pictures: Float[np.ndarray, "n d"], captions: Float[np.ndarray, "n d"], candidates: int = 100, seed: int = 0
) -> Bool[np.ndarray, " n"]:
    """Returns whether each picture's own caption is the nearest of `candidates`, itself and others of the set.

    Captions with the same vector as its own are not drawn against it. Where there are fewer, all are.

    Raises:
      ValueError: if there is nothing to choose from.
    """
    x, y = _unit(pictures), _unit(captions)
    if candidates < 2 or len(x) < 2:
        raise ValueError(f"{candidates} candidates among {len(x)} captions: expected at least 2 to choose from")
    rng = np.random.default_rng(seed)
    hits = []
    for i in range(len(x)):
        others = np.flatnonzero((y != y[i]).any(axis=1))
        drawn = rng.permutation(others)[: candidates - 1]
        hits.append(bool((x[i] @ y[drawn].T < x[i] @ y[i]).all()))
    return np.array(hits)


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)
