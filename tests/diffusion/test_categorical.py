"""Diffusion of levels: chains in closed form, the bound against the enumeration of all paths, and what is drawn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import categorical
from jaxdiff.sampling import walk

KINDS = ("uniform", "absorbing", "gaussian")
K, T = 3, 3


@pytest.mark.parametrize("kind", KINDS)
def test_chains_are_stochastic_and_end_as_they_say(kind):
    of = categorical.chain(kind, 5, 50)
    np.testing.assert_allclose(of.one.sum(-1), 1, atol=1e-12)
    assert (of.one >= 0).all()
    np.testing.assert_allclose(of.all[-1][:5], np.broadcast_to(of.last, (5, len(of.last))), atol=0.02)
    if kind == "absorbing":  # at t, t / T of the levels are gone
        np.testing.assert_allclose(of.all[10][0, 5], 0.2, atol=1e-12)
    else:
        np.testing.assert_allclose(of.one.sum(1), 1, atol=1e-12)
    if kind == "gaussian":
        assert of.one[3][2, 3] > of.one[3][2, 4] > 0
    else:
        np.testing.assert_allclose(of.one[3][2, [0, 1, 3, 4]], of.one[3][2, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_that_of_all_paths_and_above_the_likelihood(kind):
    """One value, three levels, three steps: every x_1, x_2, x_3 by hand, with a network that is a table."""
    of = categorical.chain(kind, K, T)
    states = len(of.last)
    table = np.random.default_rng(0).standard_normal((T + 1, states, K))
    guess = np.exp(table) / np.exp(table).sum(-1, keepdims=True)

    terms = jax.jit(lambda *args: categorical.terms(of, *args))

    def reverse(t, xt):
        joint = of.one[t - 1][:, xt] * (guess[t, xt] @ of.all[t - 1][:K])
        return joint / max(joint.sum(), 1e-300)  # of what cannot be seen

    for x0 in range(K):
        expected, likely = 0.0, 0.0
        for path in itertools.product(range(states), repeat=T):
            q = np.prod([of.one[n][before, after] for n, (before, after) in enumerate(itertools.pairwise((x0, *path)))])
            p = of.last[path[-1]]
            for t in range(T, 0, -1):
                p *= reverse(t, path[t - 1])[path[t - 2] if t > 1 else x0]
            likely += p
            expected += q * (np.log(q) - np.log(p)) if q > 0 else 0.0
        got = float(categorical.prior_term(of, jnp.array([x0]))[0])
        for t in range(1, T + 1):
            xt = jnp.arange(states)
            each = terms(jnp.asarray(table[t], jnp.float32), jnp.full(states, x0), xt, jnp.full(states, t))
            seen = of.all[t][x0]
            got += (np.asarray(each, np.float64)[seen > 0] * seen[seen > 0]).sum()
        assert got == pytest.approx(expected, abs=1e-5)
        assert got >= -np.log(likely)


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_levels_come_as_often_as_all_paths_say(kind):
    of = categorical.chain(kind, K, T)
    states = len(of.last)
    table = jnp.asarray(np.random.default_rng(0).standard_normal((T + 1, states, K)), jnp.float32)
    p = of.last
    for t in range(T, 0, -1):
        guess = np.asarray(jax.nn.softmax(table[t]), np.float64)
        joint = of.one[t - 1].T * (guess @ of.all[t - 1][:K])
        p = p @ (joint / np.maximum(joint.sum(1, keepdims=True), 1e-300))
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.jit(lambda: walk.levels(of, lambda x, t: table[t[0]][x], keys, (5,)))()
    np.testing.assert_allclose(np.bincount(np.ravel(drawn), minlength=states) / 10_000, p, atol=0.02)
    if kind == "absorbing":
        assert np.max(drawn) < K


def test_noise_is_the_product_of_the_steps():
    of = categorical.chain("gaussian", 4, 6)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = categorical.noised(of, jnp.full(20_000, 2), jnp.full(20_000, 3), keys)
    product = of.one[0] @ of.one[1] @ of.one[2]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 20_000, product[2], atol=0.015)
