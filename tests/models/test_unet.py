import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models.unet import UNet, UNetConfig, cifar10
from jaxdiff.typing import Cond

SMALL = UNetConfig(
    channels=(8, 16), attention=("none", "cross"), mid_attention="cross", heads=(1, 2), depth=(1, 1),
    groups=4, layers=1,
)  # fmt: skip
SD15 = UNetConfig(
    out_channels=4, channels=(320, 640, 1280, 1280), attention=("cross", "cross", "cross", "none"),
    mid_attention="cross", heads=(8, 8, 8, 8), time_shift=0.0, sin_first=False,
)  # fmt: skip


def made(config, cond=None, batch=3, size=8):
    """A network with weights that are nowhere zero, and its input."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, t = jax.random.normal(keys[0], (batch, size, size, 3)), jnp.linspace(0.0, 999.0, batch)
    params = jax.eval_shape(UNet(config).init, keys[1], x, t, cond)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(rng.normal(size=leaf.shape) * 0.2, jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, leaves), x, t


def context(batch=3):
    return Cond(
        context=jax.random.normal(jax.random.key(5), (batch, 6, 8)),
        context_mask=jnp.arange(6)[None] < jnp.array([[2], [4], [6]])[:batch],
    )


@pytest.mark.parametrize(
    ("config", "shape", "cond", "count"),
    [
        (cifar10(), (1, 32, 32, 3), Cond(), 35_746_307),
        (SD15, (1, 32, 32, 4), Cond(context=jnp.zeros((1, 77, 768))), 859_520_964),
    ],
)
def test_published_parameter_counts(config, shape, cond, count):
    init = lambda key: UNet(config).init(key, jnp.zeros(shape), jnp.zeros(1), cond)
    assert sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0)))) == count


def test_permuting_the_batch_permutes_the_output():
    params, x, t = made(SMALL, context())
    order = jnp.array([2, 0, 1])
    y = UNet(SMALL).apply(params, x, t, context())
    cond = jax.tree.map(lambda leaf: leaf[order], context())
    np.testing.assert_allclose(UNet(SMALL).apply(params, x[order], t[order], cond), y[order], rtol=1e-4, atol=1e-5)


def test_masked_tokens_change_nothing():
    params, x, t = made(SMALL, context())
    cond = context()
    other = dataclasses.replace(cond, context=jnp.where(cond.context_mask[..., None], cond.context, 9.0))
    run = lambda cond: UNet(SMALL).apply(params, x, t, cond)
    np.testing.assert_array_equal(run(cond), run(other))
    assert not np.allclose(run(cond), run(dataclasses.replace(cond, context=cond.context + 1)))


@pytest.mark.parametrize("remat", ["products", "blocks"])
def test_recomputing_changes_no_gradient(remat):
    params, x, t = made(SMALL, context(2), batch=2, size=7)  # which halves to 4
    cond = context(2)

    def grads(config):
        return jax.jit(jax.grad(lambda p: (UNet(config).apply(p, x, t, cond) ** 2).mean()))(params)

    plain, again = grads(SMALL), grads(dataclasses.replace(SMALL, remat=remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, again)


def test_the_more_is_computed_again_the_less_is_kept():
    def kept(remat):
        net = UNet(dataclasses.replace(SMALL, attention=("none", "self"), mid_attention="none", remat=remat))
        x, t = jnp.zeros((2, 16, 16, 3)), jnp.zeros(2)
        params = jax.eval_shape(net.init, jax.random.key(0), x, t, Cond())
        _, backward = jax.eval_shape(lambda p: jax.vjp(lambda p: net.apply(p, x, t, Cond()), p), params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("blocks") < kept("products") < kept("none")


@pytest.mark.parametrize(
    "change",
    [
        {"scale_shift": True},
        {"adm_resample": True},
        {"attention": ("none", "self"), "mid_attention": "none"},
        {"patch": 2, "attention": ("none", "none")},
        {"dtype": "bfloat16"},
        {"labels": 5},
        {"pooled": True, "augment": True},
    ],
)
def test_every_option_is_heeded_and_gives_finite_pictures_of_the_same_size(change):
    config = dataclasses.replace(SMALL, **change)
    cond = dataclasses.replace(
        context(),
        label=jnp.array([0, 1, 5]) if config.labels else None,
        pooled=jnp.ones((3, 7)) if config.pooled else None,
        augment=jnp.ones(3) if config.augment else None,
    )
    params, x, t = made(config, cond)
    y = UNet(config).apply(params, x, t, cond)
    assert y.shape == x.shape
    assert y.dtype == jnp.float32
    assert np.isfinite(y).all()
    plain, *_ = made(SMALL, context())
    if jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, plain):
        assert np.abs(y - UNet(SMALL).apply(params, x, t, context())).max() > 1e-3
    for name in ("label", "pooled", "augment"):
        if (told := getattr(cond, name)) is not None:
            other = UNet(config).apply(params, x, t, dataclasses.replace(cond, **{name: told[::-1] * 2 // 3}))
            assert np.abs(y - other).max() > 1e-3, name


@pytest.mark.parametrize(
    ("change", "size", "cond", "words"),
    [
        ({"pad_after": True}, 7, context(), "patches of 1 and halve 1 times: both sides must be multiples of 2"),
        ({"adm_resample": True}, 7, context(), "multiples of 2"),
        ({"patch": 2}, 7, context(), "7x7 does not cut into patches of 2: both sides must be multiples of 2"),
        ({"patch": 2, "pad_after": True}, 6, context(), "multiples of 4"),
        ({"heads": (1,)}, 8, context(), "one entry for each of the 2 levels"),
        ({"attention": ("none", "crss")}, 8, context(), "expected none, self, cross, joint or context"),
        ({"labels": 3}, 8, context(), "cond.label is missing"),
        ({"heads": (1, 3)}, 8, context(), "or by 3 heads"),
    ],
)
def test_what_cannot_be_is_refused_when_traced(change, size, cond, words):
    config = dataclasses.replace(SMALL, **change)
    with pytest.raises(ValueError, match=words):
        made(config, cond, size=size)
