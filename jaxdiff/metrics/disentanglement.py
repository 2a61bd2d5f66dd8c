"""Disentanglement: whether each known factor of pictures is told by one latent alone: the mutual information gap.

    MIG = mean over factors k of (I(z_first; v_k) - I(z_second; v_k)) / H(v_k),

of the two latents that say most of the factor; 1 where each factor is one latent, 0 where two say the same of it.
Latents are cut into bins of equal width, as in the disentanglement library's estimate.

Source: Chen et al. 2018, arXiv 1802.04942, equation 6; bins as Locatello et al. 2019, arXiv 1811.12359, appendix C.
"""

import numpy as np
from jaxtyping import Float, Int


def mutual_information(x: Int[np.ndarray, " n"], y: Int[np.ndarray, " n"]) -> float:
    """Returns the mutual information of pairs of whole numbers from 0 on, in nats."""
    joint = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(joint, (x, y), 1 / len(x))
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / apart[seen])).sum())


def mig(latents: Float[np.ndarray, "n d"], factors: Int[np.ndarray, "n k"], bins: int = 20) -> float:
    """Returns the mutual information gap, from 0 to 1.

    Args:
      latents: the encoder's means of n pictures, two or more numbers each.
      factors: whole numbers from 0 on that the pictures were made of.
      bins: of each latent.

    Raises:
      ValueError: for fewer than two latents, a factor that never changes, or fewer than one bin.
    """
    if latents.shape[1] < 2 or bins < 1:
        raise ValueError(f"the gap is between two latents in bins: got {latents.shape[1]} latents and {bins} bins")
    if still := [k for k in range(factors.shape[1]) if np.ptp(factors[:, k]) == 0]:
        raise ValueError(f"factor {still[0]} never changes, so that nothing can tell it: leave it out")
    low, spread = latents.min(0), np.maximum(np.ptp(latents, 0), 1e-12)
    cut = np.minimum((bins * (latents - low) / spread).astype(int), bins - 1)
    gaps = []
    for factor in factors.T:
        second, first = np.sort([mutual_information(one, factor) for one in cut.T])[-2:]
        gaps.append((first - second) / mutual_information(factor, factor))
    return float(np.mean(gaps))
