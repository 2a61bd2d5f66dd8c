"""The transformer of text and codes: masks proved by gradients, cached draws beside whole calls, counts, refusals."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, randomised
from scipy import stats

from jaxdiff.models import text_image_transformer as dalle
from jaxdiff.models.text_image_transformer import TextImageTransformerConfig, seen
from jaxdiff.sampling.tokens import Numbers

NET = TextImageTransformerConfig(width=8, layers=2, heads=2, attention=("row", "column"), window=3)
PLAIN = Numbers(np.float32(1), np.int32(99), np.float32(1), np.float32(1))
T, SHAPE = 3, (3, 4)


def by_words(pattern, i, j, w):
    """Whether code i sees code j, by the words of the paper, for a window of 3x3."""
    if j > i:
        return False
    if pattern == "full":
        return True
    if pattern == "row":  # the previous w + 1 codes: the last one is in the same column of the row before
        return j in range(i - w, i + 1)
    if pattern == "column":
        return i % w == j % w
    return j in (i, i - 1, i - w - 1, i - w, i - w + 1)  # wraps around


@pytest.mark.parametrize("pattern", dalle.PATTERNS)
def test_masks_are_those_of_the_papers_words(pattern):
    mask, (h, w) = seen(pattern, T, SHAPE, 3), SHAPE
    assert mask.shape == (T + h * w - 1,) * 2
    assert (mask[:T, :T] == np.tril(np.ones((T, T)))).all()
    assert not mask[:T, T:].any()
    assert mask[T:, :T].all()
    for i, j in itertools.product(range(h * w - 1), repeat=2):
        assert mask[T + i, T + j] == by_words(pattern, i, j, w), (i, j)


def test_a_window_as_wide_as_the_picture_reaches_to_its_corners():
    mask = seen("conv", 1, (4, 3), 3)[1:, 1:]
    assert [int(row.sum()) for row in mask] == [1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5]


@functools.cache
def made(net=NET, vocabulary=7, length=T, shape=SHAPE, codes=5):
    module = dalle.TextImageTransformer(net, vocabulary, length, shape, codes)
    n = shape[0] * shape[1]
    blank = jnp.zeros((1, length), jnp.int32), jnp.zeros((1, n), jnp.int32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *blank))["params"]
    return module, randomised(shapes, 0.7)


@pytest.mark.parametrize("pattern", dalle.PATTERNS)
def test_masks_are_proved_by_gradients(pattern):
    """One layer: output i depends on exactly the states that the mask of its place names."""
    module, params = made(dataclasses.replace(NET, layers=1, last=pattern))
    n = T + SHAPE[0] * SHAPE[1] - 1
    mask = seen(pattern, T, SHAPE, 3)

    def out(states):
        return module.apply(
            {"params": params}, states[None], method=lambda m, y: m.blocks[0].look(y, jnp.asarray(mask))[0]
        )[0]

    states = jnp.asarray(np.random.default_rng(0).normal(size=(n, 8)), jnp.float32)
    gradient = jax.jit(jax.jacobian(lambda y: (out(y) * jnp.arange(1, 9.0)[None]).sum(-1)))(states)
    np.testing.assert_array_equal(np.abs(gradient).max(-1) > 0, mask)


def test_nothing_is_seen_before_it_is_said():
    """Of the whole network: logits of a token change with those before it alone, text and codes."""
    module, params = made(dataclasses.replace(NET, attention=("full",), last="full"))
    apply = jax.jit(lambda t, i: module.apply({"params": params}, t, i))
    rng = np.random.default_rng(1)
    tokens, index = rng.integers(1, 7, (1, T)), rng.integers(0, 5, (1, 12))
    before = [np.asarray(x)[0] for x in apply(tokens, index)]
    for at in range(T + 12):
        t, i = tokens.copy(), index.copy()
        if at < T:
            t[0, at] = t[0, at] % 6 + 1
        else:
            i[0, at - T] = (i[0, at - T] + 1) % 5
        moved = np.concatenate(
            [np.abs(a - b[0]).max(-1) for a, b in zip(before, map(np.asarray, apply(t, i)), strict=True)]
        )
        assert not moved[: max(at, 0)].any()  # logits of tokens 1 .. at
        assert moved[at:].all()


def uncached(module, params, tokens, index):
    return module.apply({"params": params}, tokens, index)[1]


def test_cached_logits_are_those_of_whole_calls():
    module, params = made()
    rng = np.random.default_rng(2)
    tokens = jnp.asarray([[1, 4, 2], [1, 2, 0]])  # the second is padded
    index = jnp.asarray(rng.integers(0, 5, (2, 12)))

    @jax.jit
    def stepped(params):
        apply = lambda method, *args: module.apply({"params": params}, *args, method=method)
        first, kept = apply("start", tokens)

        def step(kept, at):
            logits, kept = apply("step", index[:, at], kept, at)
            return kept, logits

        _, rest = jax.lax.scan(step, kept, jnp.arange(11))
        return jnp.concatenate([first[:, None], rest.swapaxes(0, 1)], 1)

    np.testing.assert_allclose(
        stepped(params), jax.jit(lambda p: uncached(module, p, tokens, index))(params), atol=2e-5
    )


def test_draws_are_those_of_whole_calls():
    """Guided, with the same keys: each code is what the logits of all before it, made anew, give."""
    module, params = made()
    tokens, away = jnp.asarray([[1, 4, 2], [1, 2, 0]]), jnp.asarray([1, 2, 0])
    numbers = PLAIN._replace(guidance=np.float32(2), top_k=np.int32(3))
    run = jax.jit(lambda k: dalle.sample(module, params, tokens, away, k, numbers))
    index = run(keys(2))
    told, untold = (jax.jit(lambda t: uncached(module, params, t, index))(t) for t in (tokens, jnp.stack([away] * 2)))
    logits = untold + 2 * (told - untold)
    third = jnp.sort(logits, -1)[..., -3:-2]
    assert (jnp.take_along_axis(logits, index[..., None], -1) >= third - 1e-4).all()
    one = run(jnp.stack([keys(2)[0]] * 2))
    np.testing.assert_array_equal(one[0], index[0])


def test_frequencies_are_the_models_probabilities():
    """All 27 pictures of 1x3 codes of 3."""
    module, params = made(dataclasses.replace(NET, layers=1), 7, 2, (1, 3), 3)
    count = 3000
    tokens = jnp.asarray([[1, 3]])
    index = jax.jit(lambda t, k: dalle.sample(module, params, t, None, k, PLAIN))(
        jnp.repeat(tokens, count, 0), keys(count)
    )
    every = jnp.asarray(list(itertools.product(range(3), repeat=3)))
    logits = jax.jit(lambda t: uncached(module, params, t, every))(jnp.repeat(tokens, 27, 0))
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), every[..., None], -1).sum((1, 2))
    p = np.exp(np.asarray(log_p, np.float64))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    found = np.bincount(np.asarray(index) @ [9, 3, 1], minlength=27)
    often = p * count >= 5
    found, p = np.append(found[often], found[~often].sum()), np.append(p[often], p[~often].sum())
    assert (p > 0).all()
    assert stats.chisquare(found, count * p / p.sum()).pvalue > 1e-4


def test_padding_is_a_token_of_its_own_at_each_position():
    np.testing.assert_array_equal(dalle.padded(jnp.array([[1, 2, 0, 0]]), 7), [[1, 2, 9, 10]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 9}, "width 9 does not divide into 2 heads"),
        ({"layers": 0}, "layers is 0"),
        ({"window": 4}, "window is 4: expected an odd number"),
        ({"attention": ()}, "expected some of full, row"),
        ({"last": "diagonal"}, "last 'diagonal'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(NET, **fields).check()


def test_patterns_are_the_papers():
    """Columns where i - 2 is a multiple of 4, rows elsewhere, and convolution last (appendix B.1)."""
    found = TextImageTransformerConfig(layers=64).patterns()
    assert found == (*("column" if (i - 2) % 4 == 0 else "row" for i in range(1, 64)), "conv")
