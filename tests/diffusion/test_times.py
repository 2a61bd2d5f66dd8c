import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff.diffusion import continuous, schedule, times

U = np.linspace(0.001, 0.999, 400)
NORMAL = scipy.stats.norm.cdf
CONTINUOUS = {
    "uniform": (times.uniform(0.2, 0.6), lambda t: (t - 0.2) / 0.4),
    "logit_normal": (times.logit_normal(0.5, 2.0), lambda t: NORMAL((np.log(t / (1 - t)) - 0.5) / 2)),
    "log_normal": (times.log_normal(schedule.edm(), -1.2, 1.2), lambda t: NORMAL((np.log(80 * t) + 1.2) / 1.2)),
    "log_normal_vp": (
        times.log_normal(schedule.vp(), -1.0, 0.5),
        lambda t: NORMAL((-schedule.vp().log_snr(t) / 2 + 1.0) / 0.5),
    ),
    "mode_0": (times.mode(0.0), lambda t: t),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_times_are_the_quantiles_of_their_distribution(name):
    quantile, cdf = CONTINUOUS[name]
    t = np.asarray(quantile(jnp.asarray(U, jnp.float32)), np.float64)
    np.testing.assert_allclose(cdf(t), U, atol=2e-5)  # float32 times of a steep distribution


def test_mode_is_the_published_curve_and_rises():
    u = 1 - U
    want = 1 - u - 1.29 * (np.cos(np.pi / 2 * u) ** 2 - 1 + u)
    got = times.mode()(jnp.asarray(U, jnp.float32))
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.all(np.diff(got) > 0)


@pytest.mark.parametrize("count", [3, 10, 1000])
def test_trained_steps_and_levels_are_all_equally_likely(count):
    u = jnp.asarray((np.arange(5 * count) + 0.5) / (5 * count), jnp.float32)
    steps, levels = (np.asarray(f(count)(u)).reshape(count, 5) for f in (times.steps, times.levels))
    np.testing.assert_allclose(steps, np.repeat((np.arange(count) + 1)[:, None] / count, 5, 1), rtol=1e-6)
    s = schedule.ve(0.01, 50.0)
    geometric = np.geomspace(0.01, 50.0, count)
    np.testing.assert_allclose(s.sigma(levels), np.repeat(geometric[:, None], 5, 1), rtol=1e-3)
    assert levels.min() == np.float32(continuous.EDGE)


@pytest.mark.parametrize("u", [2.0**-24, 1 - 2.0**-24])
@pytest.mark.parametrize("name", [*CONTINUOUS, "mode", "steps", "levels"])
def test_the_extreme_draws_are_times(name, u):
    rest = {"mode": times.mode(), "steps": times.steps(10), "levels": times.levels(10)}
    f = rest[name] if name in rest else CONTINUOUS[name][0]
    assert 0 < float(f(jnp.float32(u))) <= 1


def test_quarters_have_the_loss_for_their_mean_however_a_batch_is_split():
    u = jax.random.uniform(jax.random.key(0), (64,))
    losses = jnp.exp(3 * u)
    whole = times.by_quarter(u, losses)
    parts = [times.by_quarter(u[n::4], losses[n::4]) for n in range(4)]
    for name, value in whole.items():
        assert float(value) == pytest.approx(np.mean([p[name] for p in parts]), rel=1e-6)
    assert np.mean(list(whole.values())) == pytest.approx(float(losses.mean()), rel=1e-6)
    even = (jnp.arange(64.0) + 0.5) / 64
    want = np.exp(3 * np.asarray(even)).reshape(4, 16).mean(1)
    np.testing.assert_allclose(list(times.by_quarter(even, jnp.exp(3 * even)).values()), want, rtol=1e-6)
