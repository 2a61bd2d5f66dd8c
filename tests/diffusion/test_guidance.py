import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import exact, guidance, prediction, schedule
from jaxdiff.typing import Cond

S = schedule.vp()
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 3, 2)), jnp.float32)
HALF = jnp.float32(0.5)
COND, NULL = Cond(pooled=jnp.full((4, 1), 2.0)), Cond(pooled=jnp.zeros((1, 1)))
CALLS = []


def network(params, x, t, cond):
    CALLS.append(x.shape[0])
    return jnp.sin(x) * (1 + cond.pooled[:, :, None, None])


def test_classifier_free_guidance_is_one_doubled_call_between_the_two_conditions():
    denoise = guidance.classifier_free(network, {}, COND, NULL, S, "eps")
    good = prediction.denoiser(network, {}, COND, S, "eps")
    bad = prediction.denoiser(network, {}, Cond(pooled=jnp.zeros((4, 1))), S, "eps")
    t = jnp.float32(0.4)
    CALLS.clear()
    np.testing.assert_allclose(denoise(X, t, {}), good(X, t, {}), atol=1e-5)
    assert CALLS == [8, 4]
    for g in (0.0, 1.0, 7.5, jnp.array([0.0, 1.0, 2.0, 7.5])):
        scale = jnp.reshape(jnp.broadcast_to(g, 4), (4, 1, 1, 1))
        expected = bad(X, t, {}) + scale * (good(X, t, {}) - bad(X, t, {}))
        np.testing.assert_allclose(denoise(X, t, {"guidance": g}), expected, rtol=1e-4, atol=1e-4)


def test_rescaling_restores_the_deviation_of_the_conditional_output():
    denoise = guidance.classifier_free(network, {}, COND, NULL, S, "x0")
    full = denoise(X, jnp.float32(0.4), {"guidance": 7.5, "rescale": 1.0})
    np.testing.assert_allclose(full.std((1, 2, 3)), (3 * jnp.sin(X)).std((1, 2, 3)), rtol=1e-5)
    off = denoise(X, jnp.float32(0.4), {"guidance": 7.5, "rescale": 0.0})
    np.testing.assert_allclose(off, denoise(X, jnp.float32(0.4), {"guidance": 7.5}), rtol=1e-6)


def test_conditions_must_have_the_same_fields():
    with pytest.raises(ValueError, match="same fields"):
        guidance.classifier_free(network, {}, COND, Cond(label=jnp.zeros(4, jnp.int32)), S, "eps")


def test_contrast_is_the_same_with_two_denoisers():
    good, bad = lambda x, t, aux: x + 1, lambda x, t, aux: 0.5 * x
    both = guidance.contrast(good, bad)
    np.testing.assert_allclose(both(X, HALF, {}), X + 1, rtol=1e-6)
    np.testing.assert_allclose(both(X, HALF, {"guidance": 3.0}), 0.5 * X + 3 * (0.5 * X + 1), rtol=1e-5)


def test_an_interval_guides_inside_and_is_off_outside():
    scales = guidance.interval(np.array([1.0, 0.7, 0.4, 0.1]), 5.0, 0.3, 0.8)
    np.testing.assert_array_equal(scales, [1, 5, 5, 1])
    with pytest.raises(ValueError, match="interval of times"):
        guidance.interval(np.array([1.0]), 5.0, 0.8, 0.3)


def test_thresholds():
    wide = lambda x, t, aux: 3 * x
    np.testing.assert_array_equal(guidance.static_threshold(1.0)(wide)(X, HALF, {}), jnp.clip(3 * X, -1, 1))
    dynamic = guidance.dynamic_threshold(0.9)(wide)(X, HALF, {})
    for n in range(4):
        s = max(np.quantile(np.abs(3 * X[n]), 0.9), 1.0)
        np.testing.assert_allclose(dynamic[n], np.clip(3 * X[n], -s, s) / s, rtol=1e-5)
    small = guidance.dynamic_threshold(0.9)(lambda x, t, aux: 0.1 * jnp.clip(x, -1, 1))(X, HALF, {})
    np.testing.assert_allclose(small, 0.1 * jnp.clip(X, -1, 1), rtol=1e-6)


def test_inpainting_keeps_the_known_and_transforms_stack():
    known, mask = jnp.full(X.shape, 7.0), jnp.zeros((4, 3, 3, 1)).at[:, 0].set(1.0)
    D = guidance.static_threshold(2.0)(guidance.inpaint(known, mask)(lambda x, t, aux: x))(X, HALF, {})
    np.testing.assert_allclose(D[:, 0], jnp.clip(X[:, 0], -2, 2), rtol=1e-6)
    np.testing.assert_array_equal(D[:, 1:], 2.0)


def test_the_exact_classifier_gives_the_exact_conditional_denoiser():
    """Of a mixture with one component for each class: p(y | x_t) is known, and so is E[x0 | x_t, y]."""
    C = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.4]]])
    both = exact.mixture(np.array([0.6, 0.4]), np.array([[1.0, -1.0], [-1.5, 0.5]]), C)
    second = exact.gaussian(np.array([-1.5, 0.5]), C[1])
    x = X.reshape(-1, 2)
    log_prob = lambda x, t: jnp.log(both.posterior_weights(x, S.alpha(t), S.sigma(t))[1])
    guided = guidance.classifier(log_prob, S)(both.denoiser(S))
    for t in (jnp.float32(0.2), jnp.float32(0.6)):
        np.testing.assert_allclose(guided(x, t, {}), second.denoiser(S)(x, t, {}), atol=2e-4)
        np.testing.assert_allclose(guided(x, t, {"classifier": 0.0}), both.denoiser(S)(x, t, {}), atol=1e-6)


def test_reconstruction_guidance_moves_by_the_gradient_of_the_misfit():
    C = np.array([[0.5, 0.3], [0.3, 0.4]])
    data, x, t = exact.gaussian(np.zeros(2), C), X.reshape(-1, 2), jnp.float32(0.5)
    observed = jnp.full((x.shape[0], 1), 0.8)
    guided = guidance.reconstruction(lambda D: D[:, :1], observed, S)(data.denoiser(S))
    alpha, sigma = float(S.alpha(t)), float(S.sigma(t))
    gain = alpha * C @ np.linalg.inv(alpha**2 * C + sigma**2 * np.eye(2))  # D = gain x
    D = np.asarray(x) @ gain.T
    wanted = D + 2.0 * alpha * (0.8 - D[:, :1]) * gain[:1]
    np.testing.assert_allclose(guided(x, t, {"reconstruction": 2.0}), wanted, atol=1e-5)
