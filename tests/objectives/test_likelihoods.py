"""Distributions of whole levels: their sums, their values in float64, and what is drawn from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys
from scipy import stats

from jaxdiff.objectives import likelihood


@pytest.mark.parametrize("kind", ["logistic", "gaussian"])
@pytest.mark.parametrize("mean", [-1.5, 0.03, 0.99, 4.0])
def test_intervals_have_the_mass_that_scipy_gives_them(kind, mean):
    """Far from the mean too, where a difference of two rounded values has no digit left."""
    levels, of = 16, {"logistic": stats.logistic, "gaussian": stats.norm}[kind]
    for log_scale in (-2.0, 0.5):
        x = jnp.arange(levels)
        got = getattr(likelihood, kind)(jnp.full(levels, mean), jnp.full(levels, log_scale), x, levels)
        at = np.linspace(-1, 1, levels) - mean
        edges = (at + 1 / (levels - 1)) / np.exp(log_scale), (at - 1 / (levels - 1)) / np.exp(log_scale)
        edges[0][-1], edges[1][0] = np.inf, -np.inf
        right = edges[1] > 0
        mass = np.where(right, of.sf(edges[1]) - of.sf(edges[0]), of.cdf(edges[0]) - of.cdf(edges[1]))
        np.testing.assert_allclose(got, np.log(mass), rtol=2e-4, atol=1e-5)  # of Gaussian tails down to exp(-600)
        assert np.exp(np.asarray(got, np.float64)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixture_of_logistics_sums_to_one_and_is_drawn_as_it_says(channels):
    levels = 4
    out = jax.random.normal(jax.random.key(1), (likelihood.mixture_outputs(channels, 3),))
    x = jnp.stack(jnp.meshgrid(*[jnp.arange(levels)] * channels, indexing="ij"), -1).reshape(-1, channels)
    log_p = jax.jit(lambda: likelihood.logistic_mixture(jnp.broadcast_to(out, (len(x), out.size)), x, levels))()
    p = np.exp(np.asarray(log_p, np.float64))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    draw = lambda key: likelihood.draw_logistic_mixture(key, out, channels, levels, jnp.float32(1))
    drawn = np.asarray(jax.jit(jax.vmap(draw))(keys(20_000)))
    seen = (drawn[:, None] == np.asarray(x)[None]).all(-1).mean(0)
    assert np.abs(seen - p).max() < 0.015  # four deviations of a share of a half


def test_levels_are_read_and_shown_again():
    image = np.arange(256, dtype=np.uint8)
    for levels in (2, 17, 255, 256):
        x = likelihood.to_levels(jnp.asarray(image), levels)
        assert (x.min(), x.max()) == (0, levels - 1)
        np.testing.assert_array_equal(likelihood.to_levels(likelihood.to_values(x, levels), levels), x)
    np.testing.assert_array_equal(likelihood.to_values(jnp.arange(256), 256), image)
