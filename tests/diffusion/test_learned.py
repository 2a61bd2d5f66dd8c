import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import bound, exact, learned, schedule

S = learned.Learned(**jax.tree.map(lambda a: np.asarray(a, np.float64), learned.init(jax.random.key(0), width=32)))


def test_it_is_a_schedule_with_the_wanted_ends_and_an_inverse():
    t = np.linspace(0, 1, 101)
    log_snr = S.log_snr(t)
    assert isinstance(S, schedule.Schedule)
    assert np.all(np.diff(log_snr) < 0)
    np.testing.assert_allclose(log_snr[[0, -1]], [13.3, -5.0], rtol=1e-7)
    np.testing.assert_allclose(S.time(log_snr), t, atol=1e-12)
    np.testing.assert_allclose(S.alpha(t) ** 2 + S.sigma(t) ** 2, 1)
    np.testing.assert_allclose(2 * np.log(S.alpha(t) / S.sigma(t)), log_snr, rtol=1e-9)
    traced = jax.jit(lambda s, t: s.log_snr(t))(S, jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(traced, log_snr, atol=1e-4)
    with pytest.raises(ValueError, match="not below"):
        learned.init(jax.random.key(0), -5.0, 13.3)


def test_gradients_of_the_bound_reach_it():
    data = exact.gaussian(np.zeros(2), np.eye(2))

    def value(s):
        x0, keys = jnp.ones((8, 2)), jax.random.split(jax.random.key(0), 8)
        return bound.diffusion(data.denoiser(s), s, x0, keys, jnp.full(8, 5.0), 10).mean()

    moved = jax.grad(value)(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), S))
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(moved))
    assert float(jnp.abs(moved.outer_weight).max()) > 0
