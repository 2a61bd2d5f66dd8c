"""CLIP's contrast against its formula written out, its largest scale, and R-precision against the metric's."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.metrics.clip_score import r_precision
from jaxdiff.objectives import contrastive

RNG = np.random.default_rng(0)
X, Y = (np.asarray(contrastive.unit(jnp.asarray(RNG.normal(size=(12, 5)), jnp.float32))) for _ in range(2))


def test_the_loss_is_the_mean_of_both_cross_entropies():
    logits = 3.0 * X.astype(np.float64) @ Y.T
    soft = lambda z: z - np.log(np.exp(z).sum(1, keepdims=True))
    expected = -(np.diag(soft(logits)).mean() + np.diag(soft(logits.T)).mean()) / 2
    value, nearest = contrastive.contrast(jnp.asarray(X), jnp.asarray(Y), jnp.float32(3.0))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(nearest, logits.argmax(1) == np.arange(12))


def test_vectors_that_all_agree_have_the_logarithm_of_the_batch():
    same = jnp.tile(jnp.asarray(X[:1]), (12, 1))
    np.testing.assert_allclose(contrastive.contrast(same, same, jnp.float32(7.0))[0], np.log(12), rtol=1e-6)


def test_the_scale_ends_at_100_and_does_not_move_beyond():
    scale = jax.value_and_grad(contrastive.scale)
    np.testing.assert_allclose(scale(jnp.log(14.0))[0], 14, rtol=1e-5)
    value, slope = scale(jnp.float32(5.0))
    np.testing.assert_allclose((value, slope), (100, 0), rtol=1e-5)


def test_parts_with_the_others_gathered_have_the_loss_and_gradient_of_the_whole():
    """As pmap calls it: each part's own mean, and gradients averaged over parts."""
    mapped = contrastive.over("parts")
    scale, whole = jnp.float32(9.0), (jnp.asarray(X), jnp.asarray(Y))

    def part(w, x, y):
        return contrastive.contrast(contrastive.unit(x @ w), y, scale, *mapped)[0]

    w = jnp.asarray(RNG.normal(size=(5, 5)), jnp.float32)
    parts = [x.reshape(4, 3, 5) for x in whole]
    value, slope = jax.vmap(jax.value_and_grad(part), (None, 0, 0), axis_name="parts")(w, *parts)
    alone = jax.value_and_grad(lambda w: contrastive.contrast(contrastive.unit(whole[0] @ w), whole[1], scale)[0])(w)
    np.testing.assert_allclose(value.mean(), alone[0], rtol=1e-5)
    np.testing.assert_allclose(slope.mean(0), alone[1], atol=1e-5)


def test_precision_is_the_metrics_where_all_are_candidates():
    same = np.eye(12, dtype=bool)
    found = contrastive.precision(*map(jnp.asarray, (X, Y, same)), jnp.arange(12), 12)
    np.testing.assert_array_equal(found, r_precision(X, Y, candidates=12))


def test_texts_that_say_the_same_do_not_count_and_few_candidates_are_those_that_follow():
    near = np.tile(Y[:1], (12, 1))
    same = np.ones((12, 12), bool)
    found = contrastive.precision(*map(jnp.asarray, (X, near, same)), jnp.arange(12), 12)
    np.testing.assert_array_equal(found, 1)
    two = contrastive.precision(*map(jnp.asarray, (X, Y, np.eye(12, dtype=bool))), jnp.arange(12), 2)
    expected = [X[i] @ Y[i] > X[i] @ Y[(i + 1) % 12] for i in range(12)]
    np.testing.assert_array_equal(two, expected)
