import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.objectives import codebook


def nearest(z, codes):
    return jnp.argmin(((z[..., None, :] - codes[None, None, None]) ** 2).sum(-1), -1)


def test_codes_become_the_means_of_what_they_stand_for():
    """With decay 0 one step is one of k-means."""
    centres = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    z = centres[jnp.arange(48) % 3].reshape(3, 4, 4, 2) + 0.1 * jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    index = nearest(z, centres + 1)
    keys = jax.random.split(jax.random.key(1), 3)
    book = codebook.move(codebook.start(centres + 1), codebook.seen(z, index, keys, 3), decay=0.0)
    for k in range(3):
        np.testing.assert_allclose(book.codes[k], z[index == k].mean(0), atol=1e-5)
    np.testing.assert_allclose(book.chosen * 3, [(index == k).sum() for k in range(3)], rtol=1e-6)


def test_averages_forget_as_their_closed_form_says():
    """N_k = d^T + (1 - d) sum d^(T - t) n_kt, and the sum of the outputs likewise (van den Oord et al., A.1)."""
    rng, decay, steps = np.random.default_rng(0), 0.8, 5
    first = jnp.asarray(rng.standard_normal((3, 2)), jnp.float32)
    book, count, total = codebook.start(first), np.ones(3), np.asarray(first, np.float64)
    for step in range(steps):
        z = jnp.asarray(rng.standard_normal((2, 3, 3, 2)), jnp.float32)
        index = jnp.asarray(rng.integers(0, 3, (2, 3, 3)))
        book = codebook.move(book, codebook.seen(z, index, jax.random.split(jax.random.key(step), 2), 3), decay)
        hot = np.eye(3)[np.asarray(index).reshape(-1)]
        count = decay * count + (1 - decay) * hot.sum(0) / 2
        total = decay * total + (1 - decay) * hot.T @ np.asarray(z).reshape(-1, 2) / 2
    np.testing.assert_allclose(book.counts, count, rtol=1e-5)
    np.testing.assert_allclose(book.codes, total / count[:, None], rtol=1e-4, atol=1e-6)


def test_a_dead_code_starts_again_where_outputs_lie_and_is_not_counted_before_it_is_chosen():
    codes = jnp.array([[0.0], *[[100.0 + i] for i in range(31)]])
    z = jax.random.uniform(jax.random.key(0), (64, 2, 2, 1))
    book = codebook.start(codes)
    for step in range(3):
        before, batch = book, codebook.seen(z, nearest(z, book.codes), jax.random.split(jax.random.key(step), 64), 32)
        book = codebook.move(book, batch, decay=0.0)
        if step == 0:
            assert codebook.usage(book.chosen)[0] == 1 / 32, "moved, and not yet chosen"
    assert ((book.codes >= 0) & (book.codes <= 1)).all()
    used, perplexity = codebook.usage(book.chosen)
    assert used > 0.5
    assert perplexity > 8
    stays = codebook.move(before, batch, 0.0, follow=False)
    alive = stays.chosen >= codebook.DEAD * stays.chosen.mean()
    np.testing.assert_array_equal(stays.codes[alive], before.codes[alive])


def test_what_a_batch_tells_is_the_mean_of_what_its_parts_tell():
    z, codes = jax.random.normal(jax.random.key(0), (8, 2, 2, 3)), jax.random.normal(jax.random.key(1), (32, 3))
    index, keys = nearest(z, codes), jax.random.split(jax.random.key(2), 8)
    whole = codebook.seen(z, index, keys, 32)
    bits = jax.random.key_data(keys)
    parts = [
        codebook.seen(z[at], index[at], jax.random.wrap_key_data(bits[at]), 32) for at in (slice(0, 4), slice(4, 8))
    ]
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, (b + c) / 2, rtol=1e-5, atol=1e-7), whole, *parts)


def test_usage_counts_codes_and_perplexity_is_that_of_the_frequencies():
    used, perplexity = codebook.usage(jnp.array([4.0, 4.0, 0.0, 0.0]))
    np.testing.assert_allclose((used, perplexity), (0.5, 2.0), rtol=1e-5)
