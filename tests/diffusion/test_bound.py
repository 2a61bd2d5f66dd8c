import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff import sampling
from jaxdiff.diffusion import bound, draws, exact, schedule
from jaxdiff.sampling import grid

DATA = exact.gaussian(np.array([0.1, -0.1]), np.array([[0.5, 0.2], [0.2, 0.3]]))
X0 = jnp.asarray(DATA.sample(np.random.default_rng(0), 8), jnp.float32)


def cubature():
    """Eight pairs (x0, eps) whose averages of quadratic functions are the exact expectations, and E -log2 p(x0) / 2.

    With the exact denoiser of a Gaussian every term of the bound is such a function, so eight draws are as good as all.
    """
    z = np.sqrt(4) * np.concatenate([np.eye(4), -np.eye(4)])
    mean, covariance = DATA.moments()
    x0 = mean + z[:, :2] @ np.linalg.cholesky(covariance).T
    return x0, z[:, 2:], scipy.stats.multivariate_normal(mean, covariance).entropy() / (2 * np.log(2))


def discrete_bound(s, steps):
    """The bound of a chain of `steps` on the eight draws: the function under test, compiled."""
    x0, _, _ = cubature()
    run = jax.jit(lambda x: bound.discrete(DATA.denoiser(s), s, x, jax.random.split(jax.random.key(0), 8), steps, None))
    return run(jnp.asarray(x0, jnp.float32))


@pytest.mark.parametrize("s", [schedule.linear(), schedule.vp(), schedule.cosine()])
def test_every_term_of_the_bound_of_gaussian_data_is_its_closed_form(s, monkeypatch):
    _, eps, _ = cubature()
    monkeypatch.setattr(draws, "noise_like", lambda keys, x: jnp.asarray(eps, jnp.float32))
    got = discrete_bound(s, 1000)
    t, bits = np.arange(1, 1001) / 1000, 1 / (2 * np.log(2))
    snr, c = np.exp(s.log_snr(t)), DATA.variances[0]
    error = (c / (1 + np.outer(snr, c))).sum(axis=1)  # the posterior variance of x0
    terms = bits * 0.5 * (snr[:-1] - snr[1:]) * error[1:]
    first = bits * 0.5 * (snr[0] * error[0] + 2 * np.log(2 * np.pi / snr[0]))
    alpha, sigma = s.alpha(1.0), s.sigma(1.0)
    square = np.trace(np.atleast_2d(DATA.moments()[1])) + (DATA.moments()[0] ** 2).sum()
    prior = bits * 0.5 * (alpha**2 * square + 2 * (sigma**2 - 1 - 2 * np.log(sigma)))
    assert float(got.diffusion.mean()) == pytest.approx(terms.sum(), abs=1e-3)
    assert float(got.reconstruction.mean()) == pytest.approx(first, abs=1e-3)
    assert float(got.prior.mean()) == pytest.approx(prior, abs=1e-5)
    np.testing.assert_allclose(got.total, got.prior + got.diffusion + got.reconstruction)


@pytest.mark.parametrize("s", [schedule.ve(), schedule.edm(), schedule.flow()])
def test_the_prior_is_the_noise_that_sampling_starts_from(s):
    alpha, sigma = float(s.alpha(np.float64(1))), float(s.sigma(np.float64(1)))
    total, x0 = alpha**2 + sigma**2, np.asarray(X0, np.float64)
    kl = 0.5 * (sigma**2 / total - np.log(sigma**2 / total) - 1 + (alpha * x0) ** 2 / total).mean(axis=1)
    # of numbers near 1 in float32
    np.testing.assert_allclose(bound.prior(s, X0), kl / np.log(2), rtol=1e-4, atol=2e-7)


def test_the_bound_of_a_process_that_ends_without_a_signal_is_finite():
    s, keys = schedule.flow(), jax.random.split(jax.random.key(0), 8)
    nothing = lambda x, t, aux: jnp.zeros_like(x)
    last = bound.diffusion(nothing, s, X0, keys, jnp.full(8, 1000.0), 1000)
    square = (np.asarray(X0, np.float64) ** 2).mean(axis=1)
    want = 0.5 * np.exp(s.log_snr(np.float64(0.999))) * square / np.log(2)
    np.testing.assert_allclose(last, want, rtol=1e-3)  # 1 - 0.999 in float32
    assert np.isfinite(bound.continuous(nothing, s, X0, keys, bins=None).total).all()


def test_the_bound_of_gaussian_data_tends_to_its_entropy(monkeypatch):
    """With steps even in log-SNR the gap falls as 1 / steps; two lengths tell where it goes."""
    _, eps, entropy = cubature()
    monkeypatch.setattr(draws, "noise_like", lambda keys, x: jnp.asarray(eps, jnp.float32))
    gaps = []
    for steps in (1000, 2000, 4000):
        s = schedule.from_log_snr(np.linspace(11, -11, steps))
        gaps.append(float(discrete_bound(s, steps).total.mean()) - entropy)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert abs(2 * gaps[2] - gaps[1]) < 1e-3


def test_the_continuous_bound_of_gaussian_data_is_its_entropy(monkeypatch):
    s, many = schedule.vp(), 512  # even times for each of the eight draws integrate over log-SNR
    x0, eps, entropy = cubature()
    x0, eps = (jnp.asarray(np.tile(a, (many, 1)), jnp.float32) for a in (x0, eps))
    monkeypatch.setattr(draws, "noise_like", lambda keys, x: eps)
    monkeypatch.setattr(bound, "antithetic", lambda keys: jnp.repeat((jnp.arange(float(many)) + 0.5) / many, 8))
    got = bound.continuous(DATA.denoiser(s), s, x0, jax.random.split(jax.random.key(0), 8 * many), bins=None)
    assert float(got.total.mean()) == pytest.approx(entropy, abs=1e-3)


def test_the_random_estimate_is_unbiased():
    s, many = schedule.vp(), 4000
    x0 = jnp.asarray(DATA.sample(np.random.default_rng(1), many), jnp.float32)
    nll = -DATA.log_prob(np.asarray(x0, np.float64)) / (2 * np.log(2))
    run = jax.jit(lambda k: bound.continuous(DATA.denoiser(s), s, x0, k, bins=None).total)
    difference = np.asarray(run(jax.random.split(jax.random.key(0), many)), np.float64) - nll
    assert abs(difference.mean()) < 1e-3 + 4 * difference.std() / np.sqrt(many)


def test_one_term_is_the_divergence_of_the_posteriors():
    s, steps = schedule.linear(), 1000
    i = jnp.full(8, 400.0)
    q = bound.posterior(s, i / steps, (i - 1) / steps)
    table = sampling.ddpm(s, grid.from_steps(s, [399, 398], 0.0))
    np.testing.assert_allclose(q.from_x[0], table.A[0, 0, 0], rtol=1e-4)
    np.testing.assert_allclose(q.from_x0[0], table.b[0, 0], rtol=1e-3)
    np.testing.assert_allclose(jnp.exp(q.log_small[0] / 2), table.c[0, 0], rtol=1e-3)
    x0, D = X0[:8], X0[:8] + 0.1
    kl = bound.gaussian_kl(q.from_x0[:, None] * x0, q.log_small[:, None], q.from_x0[:, None] * D, q.log_small[:, None])
    term = bound.diffusion(lambda x, t, aux: D, s, x0, jax.random.split(jax.random.key(0), 8), i, steps)
    np.testing.assert_allclose(term, kl.mean(axis=1) / np.log(2), rtol=2e-3)


def test_gaussian_kl_and_bin_masses():
    kl = bound.gaussian_kl(jnp.float32(1.0), jnp.log(0.5), jnp.float32(0.2), jnp.log(2.0))
    assert float(kl) == pytest.approx(0.5 * (0.25 - np.log(0.25) - 1 + 0.64 / 2), rel=1e-5)
    levels = jnp.linspace(-1, 1, 256)
    for mean, std in ((0.3, 0.2), (-1.2, 0.01), (0.9, 0.003)):
        log_p = bound.bin_log_prob(levels, jnp.float32(mean), jnp.float32(2 * np.log(std)), 256)
        assert float(jnp.exp(log_p).sum()) == pytest.approx(1, abs=1e-4)
        cdf = scipy.stats.norm(mean, std).cdf
        want = cdf(levels[128] + 1 / 255) - cdf(levels[128] - 1 / 255)
        assert float(jnp.exp(log_p[128])) == pytest.approx(want, rel=1e-3, abs=1e-12)
    assert np.all(np.isfinite(bound.bin_log_prob(levels, jnp.float32(0.0), jnp.float32(2 * np.log(1e-2)), 256)))


def test_antithetic_times_are_even_and_each_is_uniform():
    keys = jax.random.split(jax.random.key(2), 8)
    t = np.sort(bound.antithetic(keys))
    np.testing.assert_allclose(np.diff(t), 1 / 8, atol=1e-6)
    many = np.asarray(jax.vmap(lambda k: bound.antithetic(jax.random.split(k, 4)))(jax.random.split(keys[3], 1000)))
    for example in many.T:
        assert scipy.stats.kstest(example, "uniform").pvalue > 1e-3
