"""The fast forms of norm, convolution and doubling against the textbook ones."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdiff.nn.conv import conv
from jaxdiff.nn.embedding import sinusoidal
from jaxdiff.nn.norm import GroupNorm, silu
from jaxdiff.nn.resnet import Downsample, ResnetBlock, Upsample, double, dropout, halve
from jaxdiff.nn.transformer import GegluMlp
from jaxdiff.nn.winograd import winograd


def textbook(x, kernel, stride=1, padding=((1, 1), (1, 1))):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dims)


def summed(x, kernel, stride, padding):
    """A convolution and the gradients of its mean square, in float64, as sums over the kernel's offsets."""
    x, kernel = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0))), np.asarray(kernel, np.float64)
    size, (high, wide) = len(kernel), x.shape[1:3]
    offsets = {
        (i, j): np.s_[:, i : high - size + i + 1 : stride, j : wide - size + j + 1 : stride]
        for i, j in np.ndindex(size, size)
    }
    y = sum(x[at] @ kernel[i] for i, at in offsets.items())
    dy, dx, dkernel = 2 * y / y.size, np.zeros_like(x), np.zeros_like(kernel)
    for i, at in offsets.items():
        dx[at] += dy @ kernel[i].T
        dkernel[i] = np.tensordot(x[at], dy, ((0, 1, 2), (0, 1, 2)))
    (top, bottom), (left, right) = padding
    return y, dx[:, top : high - bottom, left : wide - right], dkernel


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_group_norm(mean):
    x = np.random.default_rng(0).normal(mean, 1.0, (2, 5, 7, 12))
    layer = GroupNorm(groups=4, silu=True)
    params = {"scale": jnp.linspace(0.5, 2, 12), "bias": jnp.linspace(-1, 1, 12)}
    y = layer.apply({"params": params}, jnp.asarray(x, jnp.float32))
    groups = x.reshape(2, 35, 4, 3)
    normal = (groups - groups.mean((1, 3), keepdims=True)) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
    normal = normal.reshape(x.shape) * np.linspace(0.5, 2, 12) + np.linspace(-1, 1, 12)
    # E[x^2] - E[x]^2 loses mean^2 / var ulps: 900 of them for a mean of 30
    tolerance = 3e-6 * (1 + mean**2 / 10)
    np.testing.assert_allclose(y, normal / (1 + np.exp(-normal)), rtol=tolerance, atol=tolerance)


CONVS = [
    ((2, 8, 8, 512), 3, 1, ((1, 1), (1, 1))),
    ((2, 8, 8, 512), 3, 2, ((0, 1), (0, 1))),
    ((2, 9, 7, 16), 3, 2, ((1, 1), (1, 1))),
    ((2, 8, 8, 16), 1, 1, ((0, 0), (0, 0))),
    ((3, 8, 8, 16), 3, 1, ((1, 1), (1, 1))),
]


@pytest.mark.parametrize(("shape", "size", "stride", "padding"), CONVS)
def test_convolution_and_its_gradients_are_the_textbooks(shape, size, stride, padding):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], shape)
    kernel = jax.random.normal(keys[1], (size, size, shape[-1], 8)) / (size * shape[-1] ** 0.5)

    value = lambda x, kernel: (conv(x, kernel, stride, padding) ** 2).mean()
    found = conv(x, kernel, stride, padding), *jax.grad(value, (0, 1))(x, kernel)
    for ours, exact in zip(found, summed(x, kernel, stride, padding), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("shape", "out", "pieces"),
    [((2, 16, 16, 160), 128, 1), ((11, 16, 16, 64), 96, 1), ((15, 16, 16, 160), 96, 4), ((70, 16, 16, 64), 96, 8)],
)
def test_winograds_convolution_and_its_gradients_are_the_textbooks(shape, out, pieces):
    keys = jax.random.split(jax.random.key(0))
    x, kernel = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (3, 3, shape[-1], out)) / 38
    y, pull = jax.vjp(functools.partial(winograd, pieces=pieces), x, kernel)
    expected, pull_plain = jax.vjp(textbook, x, kernel)
    for ours, theirs in zip((y, *pull(y)), (expected, *pull_plain(expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6 * jnp.abs(theirs).max())
    assert jnp.array_equal(conv(x, kernel), y)  # many positions of many channels take this form on a CPU
    assert str(jax.make_jaxpr(conv)(x, kernel)).count("= dot_general[") == 1 + 3 * pieces


def test_convolution_has_forward_derivatives():
    x, kernel = jax.random.normal(jax.random.key(0), (2, 6, 6, 4)), jnp.ones((3, 3, 4, 2))
    _, ours = jax.jvp(conv, (x, kernel), (x, kernel))
    np.testing.assert_allclose(ours, 2 * textbook(x, kernel), rtol=1e-5, atol=1e-5)


def test_doubling_and_convolution_are_sums_of_nine_products():
    x = jax.random.normal(jax.random.key(0), (2, 6, 5, 4))
    layer = Upsample(3)
    params = layer.init(jax.random.key(1), x)
    kernel, bias = params["params"]["kernel"], jnp.arange(3.0)
    params = {"params": {"kernel": kernel, "bias": bias}}
    np.testing.assert_allclose(layer.apply(params, x), textbook(double(x), kernel) + bias[None, None, None], atol=3e-6)
    np.testing.assert_array_equal(layer.apply(params, x, (12, 10)), layer.apply(params, x))
    y, pull = jax.vjp(lambda kernel, x: layer.apply({"params": {"kernel": kernel, "bias": bias}}, x), kernel, x)
    _, pull_plain = jax.vjp(lambda kernel, x: textbook(double(x), kernel), kernel, x)
    for ours, theirs in zip(pull(y), pull_plain(y), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6 * jnp.abs(theirs).max())


def test_a_big_feed_forward_part_is_the_same_in_rows():
    x = jax.random.normal(jax.random.key(0), (3, 4096, 128))
    layer = GegluMlp()
    params = layer.init(jax.random.key(1), x)
    few, pull_few = jax.vjp(lambda params: layer.apply(params, x[:, :500]), params)
    assert jax.tree.structure(params) == jax.tree.structure(layer.init(jax.random.key(1), x[:, :500]))
    y, pull = jax.vjp(lambda params: layer.apply(params, x), params)
    np.testing.assert_allclose(y[:, :500], few, rtol=1e-5, atol=1e-6)
    of_rows = pull(jnp.zeros_like(y).at[:, :500].set(few))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * jnp.abs(b).max()), of_rows, pull_few(few))


@pytest.mark.parametrize("size", [(11, 10), (12, 9), (11, 9)])
def test_doubling_to_an_odd_side_leaves_out_the_last_before_the_convolution(size):
    x, kernel = jax.random.normal(jax.random.key(0), (2, 6, 5, 4)), jax.random.normal(jax.random.key(1), (3, 3, 4, 3))
    params = {"params": {"kernel": kernel}}
    run = jax.jit(lambda params, x: Upsample(3, bias=False).apply(params, x, size))
    y, pull = jax.vjp(run, params, x)
    rows, columns = (np.arange(side) // 2 for side in size)
    expected, pull_plain = jax.vjp(lambda kernel, x: textbook(x[:, rows][:, :, columns], kernel), kernel, x)
    np.testing.assert_allclose(y, expected, atol=3e-6)
    of_params, of_x = pull(y)
    # sums of up to 264 products, each of a few tens
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3),
        (of_params["params"]["kernel"], of_x), pull_plain(expected),
    )  # fmt: skip


@pytest.mark.parametrize(("after", "sides"), [(False, (4, 5)), (True, (3, 4))])
def test_odd_sides_are_halved_up_or_down(after, sides):
    x = jnp.zeros((1, 7, 9, 2))
    assert Downsample(2, after).init_with_output(jax.random.key(0), x)[0].shape == (1, *sides, 2)


def test_halving_undoes_doubling():
    x = jax.random.normal(jax.random.key(0), (1, 4, 6, 2))
    np.testing.assert_allclose(halve(double(x)), x, rtol=1e-6)


def test_dropout_of_an_example_depends_on_its_key_alone():
    keys, again = (jax.random.split(jax.random.key(0), 4) for _ in range(2))
    x = jnp.ones((4, 50, 50, 2))
    y = dropout(x, keys, 0.25)
    np.testing.assert_array_equal(dropout(x[2:3], again[2:3], 0.25), y[2:3])
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.03)  # 20,000 draws: 5 standard deviations


class Pair(nn.Module):
    """The same block under two names."""

    @nn.compact
    def __call__(self, x, keys):
        return [ResnetBlock(8, groups=4, dropout=0.5, name=name)(x, None, keys) for name in ("one", "two")]


def test_two_blocks_drop_different_numbers():
    x, keys = jax.random.normal(jax.random.key(0), (1, 4, 4, 8)), jax.random.split(jax.random.key(1), 1)
    params = Pair().init(jax.random.key(2), x, None)["params"]
    params["one"]["conv2"]["kernel"] = jnp.ones((3, 3, 8, 8))
    both = {"params": {"one": params["one"], "two": params["one"]}}
    one, two = Pair().apply(both, x, None)
    np.testing.assert_array_equal(one, two)
    one, two = Pair().apply(both, x, keys)
    assert not np.allclose(one, two)


def test_sinusoidal_is_the_formula():
    t = np.array([0.0, 1.0, 999.0])
    angles = t[:, None] * 10_000 ** (-np.arange(4) / 3)
    # float32 holds 999 radians to 6e-5
    np.testing.assert_allclose(
        sinusoidal(jnp.asarray(t, jnp.float32), 8), np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-4
    )


def test_silu():
    # 1 + tanh is exact to 1.2e-7, and |x| / 2 is up to 10
    x = jnp.linspace(-20, 20, 101)
    np.testing.assert_allclose(silu(x), x / (1 + np.exp(-np.asarray(x, np.float64))), rtol=1e-5, atol=3e-6)
