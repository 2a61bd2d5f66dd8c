import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff.objectives.autoencoding import bernoulli_kl, corrupt, gaussian_kl


def test_the_divergence_of_a_gaussian_is_that_of_samples():
    mean, log_var = np.array([[0.5, -1.0]]), np.array([[0.2, -0.7]])
    z = mean + np.exp(log_var / 2) * np.random.default_rng(0).standard_normal((200_000, 2))
    log_q = scipy.stats.norm(mean, np.exp(log_var / 2)).logpdf(z).sum(1)
    monte_carlo = (log_q - scipy.stats.norm.logpdf(z).sum(1)).mean()
    np.testing.assert_allclose(gaussian_kl(jnp.array(mean), jnp.array(log_var))[0], monte_carlo, atol=0.01)


def test_the_sparse_penalty_is_least_at_rho():
    np.testing.assert_allclose(bernoulli_kl(jnp.full(3, 0.05)), 0, atol=1e-7)
    expected = 0.05 * np.log(0.05 / 0.2) + 0.95 * np.log(0.95 / 0.8)
    np.testing.assert_allclose(bernoulli_kl(jnp.full(1, 0.2)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "masking", "salt_and_pepper"])
def test_corruption_spoils_as_much_as_it_says(kind):
    x = jnp.full((4, 64, 64, 3), 0.25)
    keys = jax.random.split(jax.random.key(0), 4)
    y = np.asarray(corrupt(x, keys, kind, 0.3))
    if kind == "gaussian":
        np.testing.assert_allclose((y - 0.25).std(), 0.3, rtol=0.02)
    else:
        spoilt = {"masking": (0.0,), "salt_and_pepper": (-1.0, 1.0)}[kind]
        assert set(np.unique(y)) == {0.25, *spoilt}
        np.testing.assert_allclose((y != 0.25).mean(), 0.3, atol=0.02)
        assert (y == y[..., :1]).all(), "whole pixels"
    assert corrupt(x, keys, "none", 0.0) is x
