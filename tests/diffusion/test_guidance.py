import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import guidance, prediction, schedule
from jaxdiff.typing import Cond

S = schedule.vp()
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 3, 2)), jnp.float32)
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
