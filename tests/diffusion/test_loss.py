import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff.diffusion import draws, loss, prediction, schedule
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
    x0, t = jax.random.normal(jax.random.key(1), (8, 4, 4, 3)), jnp.linspace(0.1, 0.9, 8)
    f = loss.denoising(lambda p, x, t, cond: p["a"] * x, s, "v", loss.min_snr())
    all_at_once = f({"a": 0.3}, x0, t, Cond(), keys)
    one = f({"a": 0.3}, x0[5:6], t[5:6], Cond(), keys[5:6])
    assert all_at_once.shape == (8,)
    np.testing.assert_allclose(all_at_once[5], one[0], rtol=1e-6)

    def perfect(params, x_t, timestep, cond):
        """Knows x0, and reads eps from what it is shown."""
        alpha, sigma = s.alpha(t)[:, None, None, None], s.sigma(t)[:, None, None, None]
        np.testing.assert_allclose(timestep, 1000 * t - 1, rtol=1e-5)
        return alpha * (x_t - alpha * x0) / sigma - sigma * x0

    assert float(loss.denoising(perfect, s, "v", loss.min_snr())({}, x0, t, Cond(), keys).max()) < 1e-9


def test_each_use_of_a_key_has_its_own_draw(key):
    keys = jax.random.split(key, 4000)
    x0 = jnp.zeros((4000, 1))
    uses = (draws.FIRST, draws.TIME, draws.NOISE, draws.DROP, draws.OFFSET, draws.PERTURB)
    each = np.concatenate([draws.noise_like(draws.fold(keys, use), x0) for use in uses], axis=1)
    np.testing.assert_allclose(np.corrcoef(each.T), np.eye(6), atol=0.08)  # 4000 draws: 5 sigma
    time = scipy.stats.norm.ppf(np.asarray(draws.uniform(keys), np.float64))
    eps, shifted = (f(keys, x0)[:, 0] for f in (loss.independent, loss.offset(loss.independent, 1.0)))
    perturbed = perturb(keys, x0, 0.5)
    gone = loss.dropped(keys, 0.5)
    together = np.corrcoef([time, eps, shifted - eps, perturbed - eps, gone])
    np.testing.assert_allclose(together, np.eye(5), atol=0.08)
    assert np.std(perturbed - eps) == pytest.approx(0.5, rel=0.05)


def perturb(keys, x0, scale):
    """The noise that a network sees at alpha = 0."""
    seen = {}

    def network(params, x, t, cond):
        seen["x"] = x
        return x

    loss.denoising(network, schedule.flow(), "flow", perturbation=scale)({}, x0, jnp.ones(len(x0)), Cond(), keys)
    return seen["x"][:, 0]


def test_the_target_of_perturbed_input_is_the_noise_without_it(key):
    keys, x0 = jax.random.split(key, 8), jax.random.normal(jax.random.key(1), (8, 4))
    eps, t = loss.independent(keys, x0), jnp.linspace(0.1, 0.9, 8)
    f = loss.denoising(lambda p, x, t, cond: eps - x0, schedule.flow(), "flow", perturbation=0.3)
    np.testing.assert_allclose(f({}, x0, t, Cond(), keys), 0, atol=1e-12)


def test_offset_noise_is_one_number_a_channel_of_each_picture(key):
    keys, x0 = jax.random.split(key, 500), jnp.zeros((500, 3, 2, 4))
    shift = loss.offset(loss.independent, 0.3)(keys, x0) - loss.independent(keys, x0)
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1, :1], shift.shape), atol=1e-6)
    assert np.std(shift[:, 0, 0]) == pytest.approx(0.3, rel=0.1)  # 2000 draws: 6 sigma
    one, other = np.corrcoef(shift[:, 0, 0].T)[0, 1:3]
    assert abs(one) < 0.25
    assert abs(other) < 0.25


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
