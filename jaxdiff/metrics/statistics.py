"""Mean and covariance of features, as they stream by: float64 on the host, in parts that merge.

With n pictures in one part and m in another, d the difference of their means and S the sum of outer products about a
mean (Chan et al. 1979):

    mean = mean_n + d m / (n + m),    S = S_n + S_m + d d^T n m / (n + m),    covariance = S / (n + m - 1).

The file is the `.npz` of other evaluators, `mu` and `sigma`; ours also says `count`, without which parts do not merge.
"""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

_MOST_BYTES = 2**31  # of one array; InceptionV3's sigma has 2**25


@dataclasses.dataclass(frozen=True)
class Moments:
    """The moments of the features of some pictures.

    Attributes:
      count: count of the pictures; 0 where a file does not say.
      mean: mean of each feature.
      covariance: covariance of each two, the unbiased estimate; zeros for a single picture.
    """

    count: int
    mean: Float64[np.ndarray, " d"]
    covariance: Float64[np.ndarray, "d d"]


def moments(features: Float[np.ndarray, "n d"]) -> Moments:
    """Returns the moments of one part, at least one picture."""
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    return Moments(len(x), mean, x.T @ x / max(len(x) - 1, 1))


def merge(a: Moments, b: Moments) -> Moments:
    """Returns the moments of two parts together; the order of merging changes nothing but rounding.

    Raises:
      ValueError: if one does not know its count.
    """
    if not (a.count and b.count):
        raise ValueError("statistics without a count do not merge: another program wrote them, compute them again")
    n = a.count + b.count
    d = b.mean - a.mean
    scatter = a.covariance * (a.count - 1) + b.covariance * (b.count - 1) + np.outer(d, d) * (a.count * b.count / n)
    return Moments(n, a.mean + d * (b.count / n), scatter / (n - 1))


def save(path: Path | str, of: Moments) -> None:
    """Writes `mu`, `sigma` and `count`; other evaluators read the first two."""
    np.savez(path, mu=of.mean, sigma=of.covariance, count=of.count)


def load(path: Path | str) -> Moments:
    """Reads what `save`, pytorch-fid or clean-fid wrote.

    Raises:
      ValueError: if the file is another, or holds numbers that no pictures have.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            if (size := max((part.file_size for part in parts.infolist()), default=0)) > _MOST_BYTES:
                raise ValueError(f"an array of {size:,} bytes, where {_MOST_BYTES:,} are the most")
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in ("mu", "sigma") if name not in file]:
                raise ValueError(f"it has no {' and no '.join(missing)}, but {', '.join([*file][:10]) or 'nothing'}")
            arrays = [np.asarray(file[name]) for name in ("mu", "sigma")]
            counted = np.asarray(file["count"]) if "count" in file else np.zeros((), int)
        if wrong := [str(x.dtype) for x in (*arrays, counted) if x.dtype.kind not in "fiu"]:
            raise ValueError(f"numbers of type {wrong[0]}, where real ones are expected")
        mean, covariance = (x.astype(np.float64) for x in arrays)
        if counted.size != 1 or not 0 <= counted.item() < 2**63 or counted.item() % 1:
            raise ValueError(f"the count of pictures is {str(counted)[:40]}")
        count = int(counted.item())
    except OSError:
        raise
    except Exception as error:  # damaged archives and headers raise a dozen kinds, from zlib.error to SyntaxError
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} holds no statistics of features: {what}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"{path}: mu {mean.shape} and sigma {covariance.shape}, expected [d] and [d, d]")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"{path}: mu or sigma is not finite")
    return Moments(count, mean, covariance)
