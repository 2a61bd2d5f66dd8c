import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion.importance import importance

TRUE = jnp.array([4.0, 1.0, 1.0, 2.0])


def warm(kept=2):
    state = importance(4, kept)
    for _ in range(kept):
        state = state.absorb(state.stats(jnp.arange(1.0, 5.0), TRUE))
    return state


def test_draws_are_uniform_until_every_step_has_been_seen_often_enough():
    state = importance(4, 2)
    all_but_one = jnp.array([1.0, 2.0, 3.0])
    for _ in range(5):
        np.testing.assert_allclose(state.probabilities(), 0.25)
        state = state.absorb(state.stats(all_but_one, TRUE[:3]))
    for _ in range(2):
        np.testing.assert_allclose(state.probabilities(), 0.25)
        state = state.absorb(state.stats(jnp.array([4.0]), TRUE[3:]))
    np.testing.assert_allclose(state.probabilities(), 0.999 * TRUE / 8 + 0.00025, rtol=1e-5)


def test_draws_follow_the_root_mean_square_of_the_last_losses():
    state = warm()
    for value in (9.0, 3.0):
        state = state.absorb(state.stats(jnp.array([2.0]), jnp.array([value])))
    root = np.array([4.0, np.sqrt((81 + 9) / 2), 1.0, 2.0])
    np.testing.assert_allclose(state.probabilities(), 0.999 * root / root.sum() + 0.00025, rtol=1e-5)


def test_weights_keep_the_mean_loss():
    u = (jnp.arange(40_000.0) + 0.5) / 40_000
    i, weight = warm().draw(u)
    assert set(np.unique(i)) == {1.0, 2.0, 3.0, 4.0}
    picked = TRUE[i.astype(jnp.int32) - 1] * weight
    assert float(picked.mean()) == pytest.approx(float(TRUE.mean()), rel=1e-4)
    uniform = np.asarray(TRUE)[np.asarray(u * 4).astype(int)]
    assert np.std(picked) < 0.02 * np.std(uniform)


def test_a_batch_in_parts_moves_the_history_as_a_whole_one_does():
    state, i, losses = importance(4, 2), jnp.array([1.0, 1.0, 3.0, 4.0]), jnp.array([2.0, 4.0, 1.0, 3.0])
    whole = state.stats(i, losses)
    parts = [state.stats(i[n::2], losses[n::2]) for n in range(2)]
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in whole}
    one, other = state.absorb(whole), state.absorb(mean)
    np.testing.assert_allclose(one.squares, other.squares)
    np.testing.assert_array_equal(one.seen, [1, 0, 1, 1])
    np.testing.assert_allclose(one.squares[:, -1], [(4 + 16) / 2, 0, 1, 9])
