import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import bound, draws, exact, loss, prediction, schedule
from jaxdiff.sampling import ode
from jaxdiff.typing import Cond

DATA = exact.gaussian(np.zeros(2), np.array([[0.5, 0.2], [0.2, 0.3]]))
X = jnp.asarray(DATA.sample(np.random.default_rng(0), 8), jnp.float32)
BITS = 1 / (2 * np.log(2))


@pytest.mark.parametrize("s", [schedule.vp(), schedule.linear(), schedule.sub_vp()])
def test_ode_likelihood_of_gaussian_data_is_the_closed_form(s):
    first = 1e-4
    got = ode.log_likelihood(DATA.denoiser(s), s, X, divergence="exact", first=first)
    want = DATA.log_prob(np.asarray(X, np.float64))
    assert np.abs(got - want).max() * BITS < 1e-3


def test_hutchinson_is_exact_on_average_and_each_example_has_its_own_signs():
    s, many = schedule.vp(), 400
    x = jnp.broadcast_to(X[:1], (many, 2))
    got = ode.log_likelihood(DATA.denoiser(s), s, x, jax.random.split(jax.random.key(0), many), first=1e-4)
    want = DATA.log_prob(np.asarray(X[:1], np.float64))
    spread = float(got.std()) / np.sqrt(many)
    assert spread > 0
    assert abs(float(got.mean()) - want[0]) < 4 * spread + 1e-3
    one = ode.log_likelihood(DATA.denoiser(s), s, x[:3], jax.random.split(jax.random.key(0), many)[:3], first=1e-4)
    np.testing.assert_allclose(one, got[:3], atol=1e-3)


def test_what_is_missing_is_said(monkeypatch):
    s = schedule.vp()
    with pytest.raises(ValueError, match="pass keys"):
        ode.log_likelihood(DATA.denoiser(s), s, X)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "diffrax":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"jaxdiff\[ode\]"):
        ode.log_likelihood(DATA.denoiser(s), s, X, divergence="exact")


def test_bound_and_ode_agree_on_a_small_trained_network():
    """Two hidden layers, trained on the bound for some seconds: neither likelihood is exact, both say the same."""
    s, rng = schedule.vp(), np.random.default_rng(0)
    data = exact.mixture(np.ones(2), np.array([[1.0, 0.5], [-1.0, -0.5]]), np.tile(0.15 * np.eye(2), (2, 1, 1)))
    shapes = [(4, 64), (64, 64), (64, 2)]
    params = {str(n): jnp.asarray(rng.normal(size=a) / np.sqrt(a[0]), jnp.float32) for n, a in enumerate(shapes)}
    points = jnp.asarray(data.sample(rng, 65536), jnp.float32)
    low, high = s.log_snr(np.array([1.0, 1e-3]))

    def network(params, x, timestep, cond):
        h = jnp.concatenate([x, s.log_snr(timestep[:, None] / 999) / 8, jnp.ones_like(x[:, :1])], axis=1)
        for n in range(2):
            h = jax.nn.silu(h @ params[str(n)])
        return h @ params["2"]

    times = lambda key: s.time(jax.random.uniform(key, minval=low, maxval=high))
    objective = loss.denoising(network, s, "v", loss.snr())

    def step(carry, key):
        params, m, v, n = carry
        pick, noise = jax.random.split(key)
        x0 = points[jax.random.randint(pick, (512,), 0, 65536)]
        keys = jax.random.split(noise, 512)
        t = jax.vmap(times)(draws.fold(keys, draws.TIME))
        g = jax.grad(lambda p: objective(p, x0, t, Cond(), keys).mean())(params)
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b**2, v, g)
        scale = lambda p, a, b: p - 1e-2 * (1 - n / 3000) * a / (jnp.sqrt(b) + 1e-6)
        return (jax.tree.map(scale, params, m, v), m, v, n + 1), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    train = jax.jit(lambda keys: jax.lax.scan(step, (params, zeros, zeros, 0.0), keys)[0][0])
    trained = train(jax.random.split(jax.random.key(0), 3000))
    denoise = prediction.denoiser(network, trained, Cond(), s, "v")
    x0 = jnp.asarray(data.sample(rng, 2000), jnp.float32)
    estimate = lambda key: bound.continuous(denoise, s, x0, jax.random.split(key, 2000), 1e-3, bins=None).total
    estimates = jax.jit(lambda keys: jax.lax.map(estimate, keys))(jax.random.split(jax.random.key(1), 800))
    by_bound = np.asarray(estimates).mean(0)
    by_ode = -np.asarray(ode.log_likelihood(denoise, s, x0, divergence="exact", first=1e-3)) * BITS
    entropy = -data.log_prob(np.asarray(x0, np.float64)).mean() * BITS
    noise = (by_bound - by_ode).std() / np.sqrt(2000)
    assert noise < 0.02
    assert abs(by_bound.mean() - by_ode.mean()) < 3 * noise, (by_bound.mean(), by_ode.mean(), noise)
    assert abs(by_ode.mean() - entropy) < 0.03, (by_ode.mean(), entropy)


def test_a_walk_that_starts_high_gives_the_density_there():
    """log p of alpha x under the noisy distribution at `first`, and the change of volume from x to alpha x."""
    s, first = schedule.vp(), 0.3
    got = ode.log_likelihood(DATA.denoiser(s), s, X, divergence="exact", first=first)
    alpha, x = s.alpha(first), np.asarray(X, np.float64)
    want = DATA.log_prob(alpha * x, alpha, s.sigma(first)) + 2 * np.log(alpha)
    np.testing.assert_allclose(got, want, atol=2e-3)
