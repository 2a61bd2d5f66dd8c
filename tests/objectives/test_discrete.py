"""A discrete VAE's terms beside closed forms and numerical integrals; its bound beside enumeration of all codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys

from jaxdiff.objectives import discrete


def test_pixels_go_inside_and_back():
    x = jnp.linspace(-1, 1, 256)
    u = discrete.inside(x)
    np.testing.assert_allclose(u, 0.8 * np.arange(256) / 255 + 0.1, rtol=1e-6)
    np.testing.assert_allclose(discrete.outside(u), x, atol=1e-6)


@pytest.mark.parametrize(("m", "log_b"), [(0.0, 0.0), (1.5, -1.0), (-2.0, -2.0)])
def test_the_density_integrates_to_one_and_has_its_median_at_the_location(m, log_b):
    at = np.linspace(-16, 16, 400_001)  # logits: du = u (1 - u) d logit
    u = 1 / (1 + np.exp(-at))
    inner = np.abs(at) < 12  # where float32 still tells 1 - u
    u, at = u[inner], at[inner]
    density = np.exp(
        np.asarray(discrete.logit_laplace(m + 0 * jnp.asarray(u), log_b + 0 * jnp.asarray(u), jnp.asarray(u)))
    )
    mass = density * u * (1 - u) * (at[1] - at[0])
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    assert mass[at < m].sum() == pytest.approx(0.5, abs=1e-3)


def test_no_scale_is_smaller_than_the_least():
    u = jnp.array([0.3])
    values = [
        float(discrete.logit_laplace(0 * u, log_b + 0 * u, u, *least)[0])
        for log_b, *least in ((-9.0, -1.0), (-1.0, -1.0))
    ]
    assert values[0] == values[1]
    by_default = [float(discrete.logit_laplace(0 * u, log_b + 0 * u, u)[0]) for log_b in (-9.0, -5.0, -4.0)]
    assert by_default[0] == by_default[1] != by_default[2]


def test_the_divergence_is_that_of_the_definition():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    q = np.asarray(jax.nn.softmax(logits), np.float64)
    np.testing.assert_allclose(discrete.kl_to_uniform(logits), (q * np.log(q * 5)).sum(-1), rtol=1e-5)
    assert float(discrete.kl_to_uniform(jnp.zeros(7))) == pytest.approx(0, abs=1e-6)
    assert float(discrete.kl_to_uniform(jnp.array([80.0, 0, 0]))) == pytest.approx(np.log(3), rel=1e-6)


def test_relaxed_codes_become_draws_as_the_temperature_falls():
    logits = jnp.broadcast_to(jnp.log(jnp.array([0.5, 0.3, 0.2])), (20_000, 3))
    noisy = discrete.perturbed(logits, keys(20_000))
    hard = discrete.one_hot(noisy)
    np.testing.assert_allclose(hard.mean(0), [0.5, 0.3, 0.2], atol=4 * np.sqrt(0.25 / 20_000))
    near = jax.nn.softmax(noisy / 1e-3)
    assert np.abs(near - hard).max(-1).mean() < 5e-3
    assert np.abs(jax.nn.softmax(noisy) - hard).max(-1).mean() > 0.1


def test_schedules_begin_and_end_where_they_are_told():
    steps = jnp.arange(0, 13)
    falls = jax.vmap(lambda step: discrete.annealed(step, 1.0, 1 / 16, 10))(steps)
    assert (falls[0], falls[5], falls[10], falls[12]) == pytest.approx((1, 17 / 32, 1 / 16, 1 / 16))
    assert (np.diff(falls)[:10] < 0).all()
