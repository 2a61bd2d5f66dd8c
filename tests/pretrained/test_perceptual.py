"""Distances by what a classifier sees, of classifiers with random weights."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models.efficientnet import MAPS, WIDTHS, EfficientNetLite0
from jaxdiff.models.lpips import Lpips
from jaxdiff.pretrained import perceptual

RNG = np.random.default_rng(0)


def random(shapes):
    fan_in = lambda x: np.sqrt(2 / np.prod(x.shape[:-1])) if x.ndim > 1 else 0.1
    return jax.tree.map(lambda x: (fan_in(x) * RNG.standard_normal(x.shape)).astype(np.float32), shapes)


def test_efficientnet_compares_directions_at_each_place_of_its_first_maps():
    x, y = (jnp.asarray(RNG.uniform(-1, 1, (2, 32, 32, 3)), jnp.float32) for _ in range(2))
    net = EfficientNetLite0()
    params = random(jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"])

    @jax.jit
    def run(params, x, y):
        maps = [net.apply({"params": params}, (z * 127.5 + 0.5) / 128, maps=True) for z in (x, y)]
        distance = lambda y: perceptual.distance("efficientnet_lite0", params, x, y)
        means = net.apply({"params": params}, (x * 127.5 + 0.5) / 128)
        return maps, distance(y), distance(x), jax.grad(lambda y: distance(y).sum())(y), means

    maps, apart, same, gradient, means = jax.device_get(run(params, x, y))
    assert {*maps[0]} == {*WIDTHS[:MAPS]}
    for width, one in maps[0].items():
        np.testing.assert_allclose(one.mean((1, 2)), means[width], rtol=1e-4, atol=1e-5)
    unit = lambda z: z / np.linalg.norm(z, axis=-1, keepdims=True)
    pairs = zip(maps[0].values(), maps[1].values(), strict=True)
    expected = sum(((unit(a) - unit(b)) ** 2).sum(-1).mean((1, 2)) for a, b in pairs)
    np.testing.assert_allclose(apart, expected, rtol=1e-4)
    np.testing.assert_array_equal(same, 0)
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any()


def test_lpips_has_a_gradient_where_no_channel_sees_anything():
    x = jnp.asarray(RNG.uniform(-1, 1, (1, 32, 32, 3)), jnp.float32)
    shapes = jax.eval_shape(Lpips("alex").init, jax.random.key(0), x, x)["params"]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    distance, gradient = jax.jit(jax.value_and_grad(lambda y: perceptual.distance("lpips_alex", zeros, x, y).sum()))(-x)
    assert distance == 0
    assert np.isfinite(gradient).all()
