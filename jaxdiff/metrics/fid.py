"""The Frechet distance of two Gaussians, which over InceptionV3's features is called FID.

    d^2 = |m_a - m_b|^2 + tr A + tr B - 2 tr (A B)^(1/2)

With A = L L^T and B = M M^T the last trace is the sum of the singular values of L^T M. They are found as accurately as
the largest of them, whereas those of A B, whose square roots other programs take, have lost half of their digits: it
matters where there are fewer pictures than features, and most are zero.

Source: Heusel et al. 2017, arXiv 1706.08500, equation 6.
"""

import numpy as np
from jaxtyping import Float

from jaxdiff.metrics.statistics import moments


def frechet_distance(
    mean_a: Float[np.ndarray, " d"],
    cov_a: Float[np.ndarray, "d d"],
    mean_b: Float[np.ndarray, " d"],
    cov_b: Float[np.ndarray, "d d"],
) -> float:
    """Returns the squared distance d^2 of two Gaussians, as everybody prints it; float64 on the host.

    Raises:
      ValueError: if the numbers are not finite, or a matrix is not a covariance (not symmetric, or clearly negative).
    """
    a, b = (np.asarray(m, np.float64) for m in (mean_a, mean_b))
    cross = _root("cov_a", cov_a).T @ _root("cov_b", cov_b)
    return _distance(a, b, np.trace(cov_a, dtype=np.float64), np.trace(cov_b, dtype=np.float64), cross)


def frechet_distance_of(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Returns the same of two sets of features, by the smaller of the matrices [n, m] and [d, d]."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} pictures: a covariance needs at least 2")
    if max(len(a), len(b)) >= a.shape[1]:
        first, second = moments(a), moments(b)
        return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
    (mean_a, x), (mean_b, y) = _centred(a), _centred(b)
    return _distance(mean_a, mean_b, (x**2).sum(), (y**2).sum(), x @ y.T)


def least(width: int) -> int:
    """Returns the fewest pictures whose covariance of `width` features is not singular."""
    return width + 1


def _centred(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean, and rows x with x^T x the covariance."""
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    return mean, (x - mean) / np.sqrt(len(x) - 1)


def _distance(mean_a: np.ndarray, mean_b: np.ndarray, trace_a: float, trace_b: float, cross: np.ndarray) -> float:
    root = np.linalg.svd(cross, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + trace_a + trace_b - 2 * root)


def _root(name: str, covariance: np.ndarray) -> np.ndarray:
    """Returns L with L L^T the covariance; directions without variance, to rounding, are left out."""
    covariance = np.asarray(covariance, np.float64)
    if not np.isfinite(covariance).all():
        raise ValueError(f"{name} is not finite: a feature of some picture is NaN or infinite")
    scale = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-5 * scale:
        raise ValueError(f"{name} is not symmetric: it is not a covariance")
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-5 * scale * len(values):
        raise ValueError(f"{name} has the eigenvalue {values[0]:.3g}: it is not a covariance")
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return vectors[:, kept] * np.sqrt(values[kept])
