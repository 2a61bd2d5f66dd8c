"""Coverage: how many modes of a distribution samples cover: what is lost when a generator collapses.

Source: Srivastava et al. 2017 (VEEGAN), arXiv 1705.07761, section 4.1: a sample is of the nearest mode if it is within
three deviations of it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Modes(NamedTuple):
    """Modes that samples cover, and how well.

    Attributes:
      covered: modes with enough samples.
      near: the part of the samples that are of any mode.
    """

    covered: int
    near: float


def modes(
    samples: Float[np.ndarray, "n d"], centers: Float[np.ndarray, "k d"], deviation: float, least: float = 0.1
) -> Modes:
    """Counts the modes that have at least `least` of the samples that would be theirs if all were as likely.

    Args:
      samples: samples of a model.
      centers: centers of the modes.
      deviation: deviation of each mode.
      least: part of n / k samples.
    """
    distance = np.linalg.norm(samples[:, None].astype(np.float64) - centers[None], axis=-1)
    near = distance.min(1) < 3 * deviation
    counts = np.bincount(distance.argmin(1)[near], minlength=len(centers))
    return Modes(int((counts >= max(1, least * len(samples) / len(centers))).sum()), float(near.mean()))
