"""Disentanglement: whether one latent alone says each known factor of pictures: two scores.

The mutual information gap:

    MIG = mean over factors k of (I(z_first; v_k) - I(z_second; v_k)) / H(v_k),

of the two latents that say most of the factor; 1 where each factor is one latent, 0 where two say the same of it.
Latents are cut into bins of equal width, as in the disentanglement library's estimate. And the beta-VAE score: of pairs
of pictures that share one factor, the mean of |z - z'| is smallest in the latents of that factor, so that a linear
classifier tells which factor it is; the score is how often it is right.

Sources: Higgins et al. 2017 (beta-VAE), ICLR, section 3; Chen et al. 2018, arXiv 1802.04942, equation 6; bins as
Locatello et al. 2019, arXiv 1811.12359, appendix C.
"""

import numpy as np
import scipy.optimize
import scipy.special
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
      bins: bins of each latent.

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


def beta_vae_score(
    latents: Float[np.ndarray, "n d"],
    factors: Int[np.ndarray, "n k"],
    votes: int = 1000,
    pairs: int = 32,
    seed: int = 0,
) -> float:
    """Returns how often a linear classifier tells which factor pairs share, of votes that it did not learn from.

    Args:
      latents: the encoder's means of n pictures.
      factors: whole numbers that the pictures were made of.
      votes: sets of pairs, of which half are learnt from.
      pairs: pairs of a vote.
      seed: seed of what is drawn.

    Raises:
      ValueError: for fewer than two factors, or a value of one that fewer than two pictures have.
    """
    if factors.shape[1] < 2:
        raise ValueError(f"the score tells factors apart: got {factors.shape[1]}, expected two or more")
    rng, count = np.random.default_rng(seed), factors.shape[1]
    z = (latents - latents.mean(0)) / np.maximum(latents.std(0), 1e-12)
    x, y = np.zeros((votes, z.shape[1])), rng.integers(count, size=votes)
    for n, which in enumerate(y):
        first = rng.integers(len(z), size=pairs)
        same = [np.flatnonzero(factors[:, which] == factors[one, which]) for one in first]
        if lonely := [one for one, group in zip(first, same, strict=True) if len(group) < 2]:
            raise ValueError(f"picture {lonely[0]} alone has its value of factor {which}: expected two of each or more")
        second = [rng.choice(group) for group in same]
        x[n] = np.abs(z[first] - z[second]).mean(0)
    half = votes // 2
    x = np.concatenate([(x - x[:half].mean(0)) / np.maximum(x[:half].std(0), 1e-12), np.ones((votes, 1))], 1)
    weights = _logistic(x[:half], np.eye(count)[y[:half]])
    return float(((x[half:] @ weights).argmax(1) == y[half:]).mean())


def _logistic(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "d k"]:
    """Returns the weights of a softmax regression, slightly held back."""

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(x.shape[1], y.shape[1])
        logits = x @ w
        log_p = logits - scipy.special.logsumexp(logits, 1, keepdims=True)
        slope = x.T @ (np.exp(log_p) - y) / len(x) + 1e-4 * w
        return float(-(y * log_p).sum() / len(x) + 5e-5 * (w * w).sum()), slope.ravel()

    start = np.zeros(x.shape[1] * y.shape[1])
    return scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x.reshape(x.shape[1], -1)
