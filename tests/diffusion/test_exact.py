import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff.diffusion import exact, schedule

COVARIANCES = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.4]]])
DATA = exact.mixture(np.array([3.0, 1.0]), np.array([[1.0, -1.0], [-1.5, 0.5]]), COVARIANCES)
X = np.random.default_rng(0).standard_normal((5, 2))


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.8, 0.6), (1.0, 3.0)])
def test_density_is_that_of_the_noisy_mixture(alpha, sigma):
    normal = scipy.stats.multivariate_normal
    parts = [
        w * normal(alpha * m, alpha**2 * C + sigma**2 * np.eye(2)).pdf(X)
        for w, m, C in zip([0.75, 0.25], DATA.means, COVARIANCES, strict=True)
    ]
    np.testing.assert_allclose(DATA.log_prob(X, alpha, sigma), np.log(sum(parts)), rtol=1e-9)
    np.testing.assert_allclose(DATA.posterior_weights(X, alpha, sigma), parts / sum(parts), rtol=1e-9)


def test_score_is_the_gradient_of_the_density_and_the_estimate_is_tweedies():
    alpha, sigma = 0.8, 0.6
    x = jnp.asarray(X, jnp.float32)
    gradient = jax.grad(lambda x: DATA.log_prob(x, alpha, sigma).sum())(x)
    np.testing.assert_allclose(DATA.score(x, alpha, sigma), gradient, atol=2e-5)
    np.testing.assert_allclose(DATA.x0(X, alpha, sigma), (X + sigma**2 * DATA.score(X, alpha, sigma)) / alpha)


def test_samples_have_the_moments():
    x = DATA.sample(np.random.default_rng(0), 40_000)
    mean, covariance = DATA.moments()
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.03)


def test_the_flow_of_a_gaussian_solves_its_ode_and_returns():
    one, s, h = exact.gaussian(np.array([1.0, -2.0]), COVARIANCES[0]), schedule.vp(), 1e-5
    t, alpha, sigma = 0.4, schedule.vp().alpha(0.4), schedule.vp().sigma(0.4)
    moved = (one.flow(X, s, t, t + h) - one.flow(X, s, t, t - h)) / (2 * h)
    D = one.x0(X, alpha, sigma)
    rate = lambda f: (f(t + h) - f(t - h)) / (2 * h)
    np.testing.assert_allclose(moved, rate(s.alpha) * D + rate(s.sigma) * (X - alpha * D) / sigma, rtol=1e-6)
    np.testing.assert_allclose(one.flow(one.flow(X, s, 0.4, 0.9), s, 0.9, 0.4), X, rtol=1e-9)
    with pytest.raises(ValueError, match="for one Gaussian, this mixture has 2"):
        DATA.flow(X, s, 0.4, 0.9)
    with pytest.raises(ValueError, match="positive"):
        exact.gaussian(np.zeros(2), -np.eye(2))
