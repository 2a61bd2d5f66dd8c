import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import loss, prediction, schedule
from jaxdiff.typing import Cond

LAMBDA = jnp.linspace(-8, 8, 33)
SNR = np.exp(np.asarray(LAMBDA))


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (loss.snr(), SNR),
        (loss.min_snr(), np.minimum(SNR, 5)),
        (loss.v(), SNR + 1),
        (loss.capped_v(), np.minimum(SNR + 1, 5)),
        (loss.truncated_snr(), np.maximum(SNR, 1)),
        (loss.p2(), SNR / (1 + SNR)),
        (loss.edm(), SNR + 4),
        (loss.sigmoid(2.0), SNR / (1 + SNR * np.exp(-2))),
    ],
)
def test_weights_are_those_of_the_papers(weight, expected):
    np.testing.assert_allclose(jnp.exp(weight(LAMBDA)), expected, rtol=1e-5)


def _pieces(s, b=6):
    rng = np.random.default_rng(0)
    x0, eps, wrong = (jnp.asarray(a, jnp.float32) for a in rng.standard_normal((3, b, 2, 3)))
    t = jnp.linspace(0.1, 0.9, b)
    return x0, eps, wrong, t, s.alpha(t)[:, None, None], s.sigma(t)[:, None, None]


@pytest.mark.parametrize("kind", prediction.KINDS)
@pytest.mark.parametrize("weight", [loss.snr(), loss.min_snr(), loss.v(), loss.edm()])
def test_a_weight_means_the_same_error_of_x0_whatever_is_predicted(kind, weight):
    s = schedule.vp()
    x0, eps, wrong, t, alpha, sigma = _pieces(s)
    x_t = alpha * x0 + sigma * eps
    output = prediction.target(x0, eps, alpha, sigma, kind) + 0.1 * wrong
    error = ((prediction.to_x0(output, x_t, alpha, sigma, kind) - x0) ** 2).mean((1, 2))
    got = loss.weighted_mse(output, x0, eps, t, s, kind, weight)
    np.testing.assert_allclose(got, jnp.exp(weight(s.log_snr(t))) * error, rtol=2e-3)


@pytest.mark.parametrize(("kind", "weight"), [("eps", loss.snr()), ("v", loss.v()), ("edm", loss.edm())])
def test_the_named_weight_of_each_kind_is_its_plain_error(kind, weight):
    # edm's weight is the plain error of F where alpha is 1; the others where variance is preserved
    s = schedule.edm(10.0) if kind == "edm" else schedule.cosine()
    x0, eps, wrong, t, alpha, sigma = _pieces(s)
    output = prediction.target(x0, eps, alpha, sigma, kind) + wrong
    plain = (wrong**2).mean((1, 2))
    np.testing.assert_allclose(loss.weighted_mse(output, x0, eps, t, s, kind), plain, rtol=1e-5)
    np.testing.assert_allclose(loss.weighted_mse(output, x0, eps, t, s, kind, weight), plain, rtol=1e-4)


def test_a_perfect_network_has_no_loss_and_examples_do_not_depend_on_their_batch(key):
    s, keys = schedule.cosine(), jax.random.split(key, 8)
    x0 = jax.random.normal(jax.random.key(1), (8, 4, 4, 3))
    f = loss.denoising(lambda p, x, t, cond: p["a"] * x, s, "v", loss.min_snr())
    all_at_once = f({"a": 0.3}, x0, Cond(), keys)
    one = f({"a": 0.3}, x0[5:6], Cond(), keys[5:6])
    assert all_at_once.shape == (8,)
    np.testing.assert_allclose(all_at_once[5], one[0], rtol=1e-6)
    perfect = loss.denoising(lambda p, x, t, cond: x0, s, "x0", loss.min_snr())
    np.testing.assert_array_equal(perfect({}, x0, Cond(), keys), 0)


@pytest.mark.parametrize(
    ("sampler", "cdf"),
    [
        (loss.uniform(0.2, 0.6), lambda t: np.clip((t - 0.2) / 0.4, 0, 1)),
        (loss.uniform_steps(10), lambda t: np.floor(t * 10 + 1e-6) / 10),
        (loss.logit_normal(0.5, 2.0), None),
        (loss.log_normal(schedule.edm(), -1.2, 1.2), None),
        (loss.mode(0.0), lambda t: t),
    ],
)
def test_times_have_their_distribution(key, sampler, cdf):
    import scipy.stats

    t = np.asarray(jax.vmap(sampler)(jax.random.split(key, 4000)), np.float64)
    assert np.all((t >= 0) & (t <= 1))
    if cdf is None:
        z = (np.log(t / (1 - t)) - 0.5) / 2 if t.max() > 0.9 else (np.log(80 * t) + 1.2) / 1.2
        cdf, t = scipy.stats.norm.cdf, z
    grid = np.quantile(t, np.linspace(0.05, 0.95, 19))
    empirical = (t[:, None] <= grid + 1e-7).mean(0)
    np.testing.assert_allclose(empirical, cdf(grid), atol=0.04)  # 4000 draws: 2.5 sigma is 0.02


def test_dropping_replaces_whole_examples_at_the_given_rate(key):
    b = 2000
    cond = Cond(context=jnp.ones((b, 3, 2)), label=jnp.ones(b, jnp.int32))
    null = Cond(context=jnp.zeros((1, 3, 2)), label=jnp.zeros(1, jnp.int32))
    got = loss.drop(jax.random.split(key, b), cond, null, rate=0.25)
    kept = got.context.reshape(b, -1)
    np.testing.assert_array_equal(kept.min(1), kept.max(1))
    np.testing.assert_array_equal(got.label, kept[:, 0])
    assert 1 - kept.mean() == pytest.approx(0.25, abs=0.04)


def test_a_kind_that_divides_by_zero_is_refused():
    with pytest.raises(ValueError, match="divides by alpha"):
        loss.denoising(lambda *a: a[1], schedule.flow(), "eps")


def test_score_matching_and_flow_matching_are_those_of_the_papers(key):
    keys = lambda: jax.random.split(jax.random.key(4), 8)
    x0, s = jax.random.normal(jax.random.key(1), (8, 4)), schedule.ve()
    t = jax.vmap(loss.uniform())(loss.fold(keys(), loss.TIME))
    eps, sigma = loss.noise_like(loss.fold(keys(), loss.NOISE), x0), s.sigma(t)[:, None]
    score = lambda p, x, level, cond: jnp.sin(x) / level[:, None]
    want = ((sigma * score({}, x0 + sigma * eps, sigma[:, 0], None) + eps) ** 2).mean(axis=1)
    np.testing.assert_allclose(loss.score_matching(score, s)({}, x0, Cond(), keys()), want, rtol=1e-4)
    u = jax.vmap(loss.logit_normal())(loss.fold(keys(), loss.TIME))[:, None]
    velocity = lambda p, x, level, cond: jnp.sin(x)
    want = ((jnp.sin((1 - u) * x0 + u * eps) - (eps - x0)) ** 2).mean(axis=1)
    got = loss.flow_matching(velocity, schedule.flow())({}, x0, Cond(), keys())
    np.testing.assert_allclose(got, want, rtol=1e-4)
