import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import schedule as schedules

SCHEDULES = {
    "linear": schedules.linear(),
    "scaled_linear": schedules.scaled_linear(),
    "cosine": schedules.cosine(),
    "sigmoid": schedules.sigmoid(),
    "sigmoid_signal": schedules.sigmoid_signal(),
    "zero_terminal": schedules.zero_terminal(schedules.scaled_linear()),
    "user": schedules.from_log_snr(np.array([6.0, 2.0, 1.0, -3.0])),
    "vp": schedules.vp(),
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "edm": schedules.edm(),
    "flow": schedules.flow(),
    "flow_shifted": schedules.flow(3.0),
    "shifted_cosine": schedules.shifted_cosine(0.5),
}
TIMES = np.concatenate([[0, 1e-7, 1e-4], np.linspace(0, 1, 1001)[1:]])


@pytest.mark.parametrize("name", SCHEDULES)
def test_log_snr_falls_strictly_from_clean_data_and_inverts(name):
    s = SCHEDULES[name]
    log_snr = s.log_snr(TIMES)
    assert isinstance(s, schedules.Schedule)
    assert log_snr.dtype == np.float64
    assert np.all(log_snr[:-1] > log_snr[1:])
    assert log_snr[0] == np.inf
    assert s.sigma(TIMES)[0] == 0
    assert s.alpha(TIMES)[0] == 1
    np.testing.assert_allclose(s.time(log_snr), TIMES, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_log_snr_is_that_of_alpha_and_sigma(name):
    s, t = SCHEDULES[name], TIMES[1:-1]
    np.testing.assert_allclose(s.log_snr(t), 2 * np.log(s.alpha(t) / s.sigma(t)), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_float32_is_accurate_at_both_ends_and_python_numbers_work(name):
    s, t = SCHEDULES[name], TIMES[1:]
    traced = jax.jit(lambda s, t: (s.alpha(t), s.sigma(t), s.log_snr(t), s.timestep(t)))(s, jnp.asarray(t, jnp.float32))
    assert {a.dtype for a in traced} == {jnp.dtype("float32")}
    inner = t < 0.995  # alpha of a schedule that ends at 0 is only as good as 1 - t
    np.testing.assert_allclose(traced[0][inner], s.alpha(t)[inner], rtol=5e-6)
    np.testing.assert_allclose(traced[1], s.sigma(t), rtol=5e-6)
    np.testing.assert_allclose(traced[2][inner], s.log_snr(t)[inner], rtol=5e-6, atol=1e-5)
    np.testing.assert_allclose(traced[3][inner], s.timestep(t)[inner], rtol=5e-6, atol=2e-4)
    assert s.alpha(0.5) == s.alpha(np.float64(0.5))


def test_trained_steps_have_the_alphas_of_the_paper():
    betas = np.linspace(1e-4, 0.02, 1000)
    s, t = schedules.linear(), (np.arange(1000) + 1) / 1000
    np.testing.assert_allclose(s.alpha(t) ** 2, np.cumprod(1 - betas), rtol=1e-11)
    np.testing.assert_allclose(s.timestep(t), np.arange(1000), atol=1e-9)
    abar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedules.cosine().alpha(t[:-1]) ** 2, abar[:-1], rtol=1e-9)


def test_fractional_steps_are_linear_in_log_snr():
    s = schedules.scaled_linear()
    between = s.log_snr(np.array([100.0, 100.25, 101.0]) / 1000)
    np.testing.assert_allclose(between[1], 0.75 * between[0] + 0.25 * between[2], rtol=1e-12)


def test_zero_terminal_keeps_the_first_alpha_and_ends_without_signal():
    before, after = schedules.scaled_linear(), SCHEDULES["zero_terminal"]
    assert after.steps == 1000
    assert after.alpha(1.0) == 0
    assert after.sigma(1.0) == 1
    np.testing.assert_allclose(after.alpha(0.001), before.alpha(0.001), rtol=1e-12)
    np.testing.assert_allclose(schedules.zero_terminal(after).knots, after.knots)


@pytest.mark.parametrize(("name", "beta"), [("vp", lambda t: 0.1 + 19.9 * t), ("sub_vp", lambda t: 0.1 + 19.9 * t)])
def test_alpha_solves_the_sde(name, beta):
    s, t, h = SCHEDULES[name], np.linspace(0.1, 0.9, 9), 1e-5
    slope = (np.log(s.alpha(t + h)) - np.log(s.alpha(t - h))) / (2 * h)
    np.testing.assert_allclose(slope, -beta(t) / 2, rtol=1e-6)


def test_flow_shift_multiplies_the_odds_of_noise():
    t = np.linspace(0.1, 0.9, 9)
    odds = lambda s: s.sigma(t) / s.alpha(t)
    np.testing.assert_allclose(odds(schedules.flow(3.0)), 3 * odds(schedules.flow()), rtol=1e-12)
    assert schedules.resolution_shift(256) == pytest.approx(np.exp(0.5))
    assert schedules.resolution_shift(4096) == pytest.approx(np.exp(1.15))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: schedules.discrete(np.array([0.1, 0.0, 0.2])), r"betas\[1\] = 0"),
        (lambda: schedules.discrete(np.array([0.1, 1.0, 0.2])), r"betas\[1\] = 1"),
        (lambda: schedules.from_log_snr(np.array([1.0, 2.0])), r"log_snr\[1\] = 2"),
        (lambda: schedules.from_log_snr(np.array([1.0])), "at least 2 steps"),
        (lambda: schedules.vp(2.0, 1.0), "0 < beta_min < beta_max"),
        (lambda: schedules.flow(0.0), "shift = 0"),
        (lambda: schedules.edm(-1.0), "sigma_max = -1"),
    ],
)
def test_bad_input_says_what_was_expected(make, says):
    with pytest.raises(ValueError, match=says):
        make()
