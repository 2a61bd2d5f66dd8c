import itertools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from jaxdiff.diffusion import coupling, loss, schedule
from jaxdiff.typing import Cond


def keys(b):
    return jax.random.split(jax.random.key(0), b)


def cost(x0, eps):
    return float(((x0 - eps) ** 2).sum())


def test_optimal_transport_is_the_best_permutation_of_all():
    x0 = jax.random.normal(jax.random.key(1), (6, 3, 2))
    independent = np.asarray(loss.independent(keys(6), x0))
    coupled = jax.jit(coupling.optimal_transport)(keys(6), x0)
    best = min(cost(x0, independent[list(p)]) for p in itertools.permutations(range(6)))
    assert np.isclose(cost(x0, coupled), best, rtol=1e-5)
    np.testing.assert_allclose(np.sort(coupled.ravel()), np.sort(independent.ravel()))


def test_a_large_batch_within_a_compiled_loop_is_paired_too():
    """Its costs are more than a callback is given at once without waiting for the thread that calls it."""
    x0 = jax.random.normal(jax.random.key(1), (300, 2))
    eps = np.asarray(loss.independent(keys(300), x0))
    again = lambda i, p: coupling.assignment(x0 + 0 * p[0].astype(jnp.float32), jnp.asarray(eps))
    loop = jax.jit(lambda x0, n: jax.lax.fori_loop(0, n, again, jnp.zeros(300, jnp.int32)))
    which = np.asarray(loop(x0, 3))
    assert sorted(which) == list(range(300))
    row, column = scipy.optimize.linear_sum_assignment(((np.asarray(x0)[:, None] - eps[None]) ** 2).sum(-1))
    assert np.isclose(cost(x0, eps[which]), cost(np.asarray(x0)[row], eps[column]), rtol=1e-5)


def test_nearest_noise_is_nearer_and_local():
    x0 = jax.random.normal(jax.random.key(1), (200, 4))
    near, one = coupling.nearest(keys(200), x0, 8), coupling.nearest(keys(200), x0, 1)
    assert cost(x0, near) < 0.7 * cost(x0, one)
    np.testing.assert_array_equal(coupling.nearest(keys(200)[3:5], x0[3:5], 8), near[3:5])


def test_a_loss_takes_coupled_noise():
    x0 = jax.random.normal(jax.random.key(1), (16, 4))
    seen = {}

    def network(params, x, t, cond):
        seen["x"] = x
        return x

    s = schedule.flow()
    f = loss.denoising(network, s, "flow", noise=coupling.optimal_transport)
    f({}, x0, jnp.ones(16), Cond(), keys(16))
    np.testing.assert_allclose(seen["x"], coupling.optimal_transport(keys(16), x0), rtol=1e-6)
