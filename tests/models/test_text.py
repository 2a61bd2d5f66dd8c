import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models.text import TextConfig, TextTransformer

NET = TextTransformer(TextConfig(vocabulary=20, length=8, width=16, layers=2, heads=2))


def test_padding_changes_nothing_and_an_empty_text_is_finite():
    tokens = jnp.array([[1, 5, 2, 0, 0, 0, 0, 0], [1, 7, 8, 9, 2, 0, 0, 0], [0] * 8])
    params = NET.init(jax.random.key(0), tokens)
    states, mask, pooled = NET.apply(params, tokens)
    assert np.isfinite(states).all()
    assert np.isfinite(pooled).all()
    np.testing.assert_array_equal(mask, tokens != 0)
    # the first text, without room for padding
    short, _, short_pooled = NET.apply(params, tokens[:1, :3])
    np.testing.assert_allclose(short[0], states[0, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(short_pooled[0], pooled[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(pooled[0], pooled[1])
