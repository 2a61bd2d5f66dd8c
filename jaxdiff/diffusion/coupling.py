"""Pairings of noise and pictures.

Independent noise makes the trajectories of a batch cross, and a network learns the average of those that do. Pairing a
picture with noise near it straightens them. Two ways, in the order of what they cost:

`nearest` draws k noises for each picture and keeps the nearest (Li et al. 2024, arXiv 2406.12303, its k-NN form):
local, so it works with keys per example and on any mesh; the marginal of the noise is no longer exactly Gaussian.

`optimal_transport` permutes the noise of a batch so that the sum of squared distances is least (Tong et al. 2023, arXiv
2302.00482; Pooladian et al. 2023, arXiv 2304.14772; the assignment of Li et al. 2024). The marginal stays Gaussian. The
assignment is solved exactly on the host, in the middle of the step, so it is for small batches on one host.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdiff.diffusion import draws
from jaxdiff.typing import Key


def nearest(keys: Key, x0: Float[Array, " b *s"], k: int = 4) -> Float[Array, " b *s"]:
    """Returns, for each picture, the nearest of k unit Gaussian noises."""

    def one(key: Key, x: Array) -> Array:
        eps = jax.random.normal(key, (k, *x.shape), jnp.float32)
        return eps[jnp.argmin(((eps - x[None]) ** 2).reshape(k, -1).sum(axis=1))]

    return jax.vmap(one)(draws.fold(keys, draws.NOISE), x0)


AT_ONCE = 2**14
"""Numbers that a callback takes in one array. JAX copies larger ones (from 100 KiB) in a thread of the pool that the
computation itself holds: on a machine of few cores it would wait for itself."""


def _assign(*rows: Array | np.ndarray) -> np.ndarray:
    import scipy.optimize  # here, since it takes a while and few runs need it

    cost = np.concatenate([np.asarray(part) for part in rows])
    return scipy.optimize.linear_sum_assignment(cost)[1].astype(np.int32)


def assignment(x0: Float[Array, " b *s"], eps: Float[Array, " b *s"]) -> Int[Array, " b"]:
    """Returns the permutation p that minimises the sum of |x0_i - eps_p(i)|^2."""
    a, b = x0.reshape(x0.shape[0], -1), eps.reshape(eps.shape[0], -1)
    # |a - b|^2 less what no permutation changes
    cost = -jnp.einsum("id,jd->ij", a, b, precision=jax.lax.Precision.HIGHEST)
    rows = max(AT_ONCE // len(cost), 1)
    parts = [cost[i : i + rows] for i in range(0, len(cost), rows)]
    return jax.pure_callback(_assign, jax.ShapeDtypeStruct((x0.shape[0],), jnp.int32), *parts)


def optimal_transport(keys: Key, x0: Float[Array, " b *s"]) -> Float[Array, " b *s"]:
    """Returns unit Gaussian noise for a batch, paired with its pictures by the least sum of squared distances."""
    eps = draws.noise_like(draws.fold(keys, draws.NOISE), x0)
    return eps[assignment(x0, eps)]
