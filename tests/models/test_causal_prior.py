"""The autoregressive prior: components in closed form, causality by gradients, draws beside whole calls and counts."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, randomised
from scipy import stats

from jaxdiff.models import causal_prior
from jaxdiff.models.causal_prior import CausalPrior, CausalPriorConfig
from jaxdiff.sampling.tokens import Numbers
from jaxdiff.typing import Cond

NET = CausalPriorConfig(embed=6, text=5, length=3, kept=2, bins=4, width=8, layers=1, heads=2)
PLAIN = Numbers(np.float32(1), np.int32(99), np.float32(1), np.float32(1))
RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
PICTURES = RNG.normal(size=(500, 6)) * [3, 2, 0.3, 0.2, 0.1, 0.1] @ BASIS.T + 5
TEXTS = RNG.normal(size=(500, 6))


def text(count, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    one = Cond(context=draw(1, 3, 5), context_mask=jnp.array([[True, True, False]]), pooled=draw(1, 6))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape[1:])), one)


@pytest.fixture(scope="module")
def params():
    blank = text(1), jnp.zeros(1, jnp.int32), jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(lambda: CausalPrior(NET).init(jax.random.key(0), *blank))["params"]
    return randomised(shapes, 0.7) | jax.tree.map(jnp.asarray, causal_prior.fit(PICTURES, TEXTS, NET))


@pytest.fixture(scope="module")
def logits(params):
    call = jax.jit(lambda share, codes: CausalPrior(NET).apply({"params": params}, text(len(codes)), share, codes))
    return lambda share, codes: np.asarray(call(jnp.asarray(share), jnp.asarray(codes)))


@pytest.mark.parametrize("bins", [4, 1024])
def test_what_is_lost_are_the_smaller_components_and_parts_of_a_bin(bins):
    net = CausalPriorConfig(embed=6, kept=2, bins=bins)
    book = causal_prior.fit(PICTURES, TEXTS, net)
    codes = causal_prior.encode(book, jnp.asarray(PICTURES, jnp.float32), bins)
    assert (codes.min(), codes.max()) == (0, bins - 1)
    lost = PICTURES - np.asarray(causal_prior.decode(book, codes, bins))
    inside = lost @ book["basis"].T
    assert (np.abs(inside) <= (book["high"] - book["low"]) / bins / 2 + 1e-4).all()  # float32 of numbers up to 20
    values = np.linalg.eigvalsh(np.cov(PICTURES.T, bias=True))[::-1]
    outside = (lost**2).sum(1).mean() - (inside**2).sum(1).mean()
    np.testing.assert_allclose(outside, values[2:].sum(), rtol=1e-3)
    deviation = ((PICTURES - PICTURES.mean(0)) @ book["basis"].T).std(0)
    np.testing.assert_allclose(deviation**2, values[:2], rtol=1e-4)


def test_each_share_of_the_dot_products_is_as_large():
    book = causal_prior.fit(PICTURES, TEXTS, NET)
    shares = causal_prior.nearness(book, jnp.asarray(PICTURES, jnp.float32), jnp.asarray(TEXTS, jnp.float32))
    np.testing.assert_array_equal(np.bincount(shares), [125] * 4)
    dots = (PICTURES * TEXTS).sum(1)
    assert dots[shares == 1].max() < dots[shares == 2].min()


def test_too_few_embeddings_are_refused():
    with pytest.raises(ValueError, match="1 embeddings of 6 numbers have no 2 components"):
        causal_prior.fit(PICTURES[:1], TEXTS[:1], NET)


def test_a_state_sees_those_before_it_alone(params):
    states = jnp.asarray(RNG.normal(size=(6, 8)), jnp.float32)
    out = lambda y: CausalPrior(NET).apply({"params": params}, y[None], method=lambda m, y: m._through(y)[0])[0]
    gradient = jax.jit(jax.jacobian(lambda y: (out(y) * jnp.arange(1, 5.0)[None]).sum(-1)))(states)
    np.testing.assert_array_equal(np.abs(gradient).max(-1) > 0, np.tril(np.ones((6, 6))))


def test_padding_and_the_share_are_told(params, logits):
    codes = jnp.zeros((1, 2), jnp.int32)
    first = logits([2], codes)
    assert (logits([3], codes)[:, 0] != first[:, 0]).all()
    other = text(1)
    other = dataclasses.replace(other, context=other.context.at[:, 2].add(1))
    again = jax.jit(CausalPrior(NET).apply)({"params": params}, other, jnp.array([2]), codes)
    np.testing.assert_allclose(again, first, atol=1e-5)


def test_draws_are_as_often_as_the_network_says(params, logits):
    count = 3000
    drawn = jax.jit(lambda k: causal_prior.sample(NET, params, text(count), None, k, PLAIN))(keys(count))
    codes = np.asarray(causal_prior.encode(params, drawn, NET.bins))
    np.testing.assert_allclose(causal_prior.decode(params, jnp.asarray(codes), NET.bins), drawn, atol=1e-4)
    every = np.array([*itertools.product(range(4), repeat=2)], np.int32)
    expected = np.zeros(len(every))
    for share in (2, 3):  # the upper half of the shares, each as often
        p = jax.nn.softmax(logits([share] * len(every), every))
        expected += np.asarray(p[np.arange(16), 0, every[:, 0]] * p[np.arange(16), 1, every[:, 1]]) / 2
    seen = np.bincount(codes @ [4, 1], minlength=16)
    keep = expected * count > 5
    assert stats.chisquare(seen[keep], expected[keep] * seen[keep].sum() / expected[keep].sum()).pvalue > 1e-3


@pytest.mark.heavy
def test_guided_draws_with_the_cache_are_as_without(params, logits):
    numbers = PLAIN._replace(top_k=np.int32(1), guidance=np.float32(3))
    told, away = text(8), text(8, seed=1)
    drawn = jax.jit(lambda k: causal_prior.sample(NET, params, told, away, k, numbers))(keys(8))
    codes = causal_prior.encode(params, drawn, NET.bins)
    call = jax.jit(lambda cond, share: CausalPrior(NET).apply({"params": params}, cond, share, codes))
    likeliest = []
    for share in (2, 3):
        a, b = (np.asarray(call(cond, jnp.full(8, share))) for cond in (told, away))
        likeliest.append((b + 3 * (a - b)).argmax(-1))
    assert all(any((row == options[n]).all() for options in likeliest) for n, row in enumerate(np.asarray(codes)))
