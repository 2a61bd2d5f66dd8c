import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import exact, schedule
from jaxdiff.sampling import ode

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
