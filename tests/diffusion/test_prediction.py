import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import prediction, schedule
from jaxdiff.typing import Cond

RNG = np.random.default_rng(0)
X0, EPS = RNG.standard_normal((2, 5, 4))


@pytest.mark.parametrize("kind", prediction.KINDS)
@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.6), (1.0, 5.0), (0.3, 0.7)])
def test_the_target_is_read_back_as_x0_and_the_slope_is_its_derivative(kind, alpha, sigma):
    x_t = alpha * X0 + sigma * EPS
    y = prediction.target(X0, EPS, alpha, sigma, kind)
    np.testing.assert_allclose(prediction.to_x0(y, x_t, alpha, sigma, kind), X0, atol=1e-13)
    moved = prediction.to_x0(y + 0.1, x_t, alpha, sigma, kind) - prediction.to_x0(y, x_t, alpha, sigma, kind)
    np.testing.assert_allclose(np.abs(moved), 0.1 * prediction.slope(alpha, sigma, kind), rtol=1e-9)
    np.testing.assert_allclose(prediction.to_eps(X0, x_t, alpha, sigma), EPS, atol=1e-13)


def test_edm_input_and_target_have_unit_variance():
    x0, eps = 0.5 * RNG.standard_normal(100_000), RNG.standard_normal(100_000)
    for alpha, sigma in [(1.0, 0.1), (1.0, 10.0), (0.5, 0.7)]:
        scale = prediction.precondition.edm(alpha, sigma).scale
        assert np.std(scale * (alpha * x0 + sigma * eps)) == pytest.approx(1, abs=0.02)
        assert np.std(prediction.target(x0, eps, alpha, sigma, "edm")) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", prediction.KINDS)
def test_a_perfect_network_gives_a_perfect_denoiser(kind):
    s = schedule.edm() if kind == "edm" else schedule.vp()
    x0, eps, t = (jnp.asarray(a, jnp.float32) for a in (X0, EPS, np.linspace(0.2, 0.9, 5)))
    alpha, sigma = s.alpha(t)[:, None], s.sigma(t)[:, None]

    def network(params, x, timestep, cond):
        assert timestep.shape == (5,)
        if kind == "edm":
            np.testing.assert_allclose(x, (alpha * x0 + sigma * eps) / jnp.sqrt(sigma**2 + 0.25), rtol=1e-5)
        return prediction.target(x0, eps, alpha, sigma, kind).astype(jnp.bfloat16)

    denoise = prediction.denoiser(network, {}, Cond(), s, kind)
    D = denoise(alpha * x0 + sigma * eps, t, {})
    assert D.dtype == jnp.float32
    # bfloat16 rounds the output by 2^-9 of itself, and x0 moves by slope times that
    bound = (
        2.0**-8
        * prediction.slope(alpha, sigma, kind)
        * jnp.abs(
            network(
                {},
                (alpha * x0 + sigma * eps) * (prediction.precondition.edm(alpha, sigma).scale if kind == "edm" else 1),
                t,
                None,
            ).astype(jnp.float32)
        )
    )
    assert np.all(np.abs(D - x0) <= bound + 1e-5)


def test_unknown_kinds_list_the_nearest_first():
    with pytest.raises(ValueError, match="unknown prediction kind 'epsilon': expected one of eps,"):
        prediction.check("epsilon")


@pytest.mark.parametrize("s", [schedule.flow(), schedule.zero_terminal(schedule.linear())])
@pytest.mark.parametrize("kind", ["eps", "score"])
def test_dividing_by_a_zero_alpha_is_refused_and_says_what_works(s, kind):
    with pytest.raises(ValueError, match=r"divides by alpha, which is 0 at t = 1.0.*'v' or 'x0'"):
        prediction.denoiser(lambda *a: a[1], {}, Cond(), s, kind)
    prediction.denoiser(lambda *a: a[1], {}, Cond(), s, "v")
