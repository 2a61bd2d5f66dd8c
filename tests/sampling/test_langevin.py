import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import exact, schedule
from jaxdiff.sampling import grid, langevin

DATA = exact.gaussian(np.array([1.0, -2.0]), np.array([[1.0, 0.3], [0.3, 0.5]]))


def check_moments(x):
    """Mean and covariance within 4.5 standard deviations, and 2% for what finite steps leave."""
    mean, C = DATA.moments()
    n = len(x)
    assert np.all(np.abs(x.mean(axis=0) - mean) < 4.5 * np.sqrt(np.diag(C) / n) + 0.02)
    spread = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / n)
    assert np.all(np.abs(np.cov(x.T) - C) < 4.5 * spread + 0.02)


def test_annealed_langevin_samples_the_data():
    s, n, rng = schedule.ve(0.05, 10.0), 3000, np.random.default_rng(0)
    times = np.append(np.linspace(1, 0, 16)[:-1], 0.0)
    table = langevin.annealed(s, times, repeats=100, step=0.1 * 0.07**2, denoise=False)
    x = sampling.replay(table, DATA.denoiser(s), 10 * rng.standard_normal((n, 2)), rng.standard_normal((1500, n, 2)))
    check_moments(x[0][-1])


def test_one_langevin_step_is_that_of_the_paper():
    s, times = schedule.ve(0.1, 1.0), np.array([1.0, 0.5, 0.0])
    table = langevin.annealed(s, times, repeats=1, step=1e-3)
    x, noise = np.ones((1, 2)), np.full((3, 1, 2), 0.5)
    a = 1e-3 * 1.0 / s.sigma(0.5) ** 2
    want = x + a / 2 * DATA.score(x, 1.0, 1.0) + np.sqrt(a) * 0.5
    got, x0 = sampling.replay(table, DATA.denoiser(s), x, noise)
    np.testing.assert_allclose(got[0], want, rtol=1e-9)
    np.testing.assert_allclose(got[-1], x0[-1], rtol=1e-9)
    with pytest.raises(ValueError, match="twice the smallest level's variance"):
        langevin.annealed(s, times, step=1.0)


def test_predictor_corrector_samples_the_data_and_each_picture_by_its_own_seed():
    s, n, d = schedule.ve(0.01, 30.0), 1000, 64
    wide = exact.gaussian(np.full(d, 0.5), np.diag(np.linspace(0.2, 1.0, d)))
    table = sampling.ddpm(s, grid.trailing(s, 120))
    keys = lambda: jax.random.split(jax.random.key(0), n)
    x_init = 30 * jax.random.normal(jax.random.key(1), (n, d))
    run = jax.jit(lambda x, k: langevin.predictor_corrector(table, wide.denoiser(s), s, x, k, snr=0.1))
    x = np.asarray(run(x_init, keys()))
    # 4.5 standard deviations, and 5% for the bias of the corrector's step in 64 dimensions
    assert np.abs(x.mean(axis=0) - 0.5).max() < 4.5 / np.sqrt(n) + 0.02
    assert np.abs(x.var(axis=0) / np.linspace(0.2, 1.0, d) - 1).max() < 4.5 * np.sqrt(2 / n) + 0.05
    np.testing.assert_allclose(run(x_init[5:7], keys()[5:7]), x[5:7], atol=1e-4)


def test_a_predictor_keeps_one_state():
    s = schedule.vp()
    table = sampling.dpmpp_2m(s, grid.trailing(s, 4))
    with pytest.raises(ValueError, match="keeps 2"):
        langevin.predictor_corrector(table, DATA.denoiser(s), s, jnp.zeros((1, 2)), jax.random.key(0))
