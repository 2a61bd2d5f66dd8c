"""The Inception score: how sure a classifier is of each picture, and how many classes it sees in all.

    exp(mean_x KL(p(y | x) || p(y))),    p(y) = mean_x p(y | x),

the mean of it over parts of the set. Source: Salimans et al. 2016, arXiv 1606.03498, section 4.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax


class InceptionScore(NamedTuple):
    """The mean over the parts, and their standard deviation."""

    mean: float
    deviation: float


def inception_score(logits: Float[np.ndarray, "n c"], splits: int = 10) -> InceptionScore:
    """Returns the score, from 1 to the number of classes, over `splits` parts of the set in its order.

    Raises:
      ValueError: if there are fewer pictures than parts.
    """
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"{n} pictures in {splits} parts: expected at least one in each, and one part")
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        p = np.exp(part)
        log_mean = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
        scores.append(np.exp((p * (part - log_mean)).sum(axis=1).mean()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))
