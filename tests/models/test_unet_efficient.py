"""The efficient U-Net: the order of its parts, and what is handed to the way up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.embedding import Mlp, sinusoidal
from jaxdiff.nn.norm import GroupNorm
from jaxdiff.nn.resnet import Downsample, ResnetBlock, Upsample

ONE = UNetConfig(
    channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=4,
    shifted=True, skip_scale=0.5**0.5,
)  # fmt: skip


def test_the_resolution_changes_before_the_blocks_and_skips_are_scaled():
    x, t = jax.random.normal(jax.random.key(1), (2, 4, 4, 3)), jnp.array([3.0, 700.0])
    shapes = jax.eval_shape(UNet(ONE).init, jax.random.key(0), x, t)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    params = jax.tree.unflatten(tree, [jnp.asarray(rng.normal(size=a.shape) * 0.2, jnp.float32) for a in leaves])

    @jax.jit
    def as_the_paper_says(params):
        emb = Mlp(32).apply({"params": params["time_mlp"]}, sinusoidal(t, 8))
        resnet = lambda place, name, y: ResnetBlock(8, 4).apply({"params": params[place][name]}, y, emb)
        y = Conv(8).apply({"params": params["conv_in"]}, x)
        small = Downsample(8).apply({"params": params["down_0"]["downsample"]}, y)
        down = resnet("down_0", "resnet_0", small)
        y = resnet("mid", "resnet_1", resnet("mid", "resnet_0", down))
        for n, skip in enumerate((down, small)):
            y = resnet("up_0", f"resnet_{n}", jnp.concatenate([y, skip / 2**0.5], -1))
        y = Upsample(8).apply({"params": params["up_0"]["upsample"]}, y)
        y = GroupNorm(4, silu=True).apply({"params": params["norm_out"]}, y)
        return Conv(3).apply({"params": params["conv_out"]}, y)

    expected = as_the_paper_says(params)
    np.testing.assert_allclose(jax.jit(UNet(ONE).apply)({"params": params}, x, t), expected, rtol=1e-4, atol=1e-5)


def test_sides_halve_once_more():
    assert ONE.unit == 2
    with pytest.raises(ValueError, match="halve 1 times: both sides must be multiples of 2"):
        ONE.check(4, 5)
