"""Noise and blur on the small picture against closed forms, what is told of them, and what cannot be."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data.config import DataConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pipelines.program import stretched
from jaxdiff.tasks import picture
from jaxdiff.tasks import super_resolution as sr
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import OptimizerConfig

NET = UNetConfig(
    channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=4, augment=True
)  # fmt: skip
MODEL = sr.Config(net=NET, condition="none", drop=0.0, low=4, preview=PreviewConfig(guidance=1.0))
ASSETS = picture.Assets(8)
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)


def drawn(**changes):
    model = dataclasses.replace(MODEL, **changes)
    return model._drawn(ASSETS, {}, {"image": jnp.asarray(IMAGE)}, jax.random.split(jax.random.key(0), len(IMAGE)))


def small():
    return IMAGE.reshape(64, 4, 2, 4, 2, 3).mean((2, 4)).round() / np.float32(127.5) - 1


def test_levels_are_the_cosine_schedules_steps():
    """alpha^2 is the product of 1 - beta, beta = min(1 - f(n + 1) / f(n), 0.999), f as Nichol and Dhariwal have it."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.cumprod(np.maximum(f[1:] / f[:-1], 0.001))
    level = np.array([0, 99, 250, 998])
    ones, zeros = jnp.ones((4, 1, 1, 1)), jnp.zeros((4, 1, 1, 1))
    alpha, sigma = (sr.noised(x, jnp.asarray(level, jnp.float32), y) for x, y in ((ones, zeros), (zeros, ones)))
    np.testing.assert_allclose(alpha[:, 0, 0, 0] ** 2, kept[level], rtol=1e-3, atol=1e-7)  # the time is a float32
    np.testing.assert_allclose(sigma[:, 0, 0, 0] ** 2, 1 - kept[level], rtol=1e-3)


def test_blur_is_a_gaussian_of_each_pictures_own_deviation():
    point = np.zeros((3, 9, 9, 1), np.float32)
    point[:, 4, 4] = 1
    deviations = np.array([0.0, 0.5, 1.2], np.float32)
    made = np.asarray(sr.blurred(jnp.asarray(point), jnp.asarray(deviations), 4))[..., 0]
    np.testing.assert_array_equal(made[0], point[0, ..., 0])
    at = np.arange(-4, 5)
    for deviation, one in zip(deviations[1:], made[1:], strict=True):
        row = np.exp(-0.5 * (at / deviation) ** 2)
        np.testing.assert_allclose(one, np.outer(row, row) / row.sum() ** 2, atol=1e-6)
    flat = sr.blurred(jnp.full((1, 5, 5, 3), 0.3), jnp.array([1.0]), 3)
    np.testing.assert_allclose(flat, 0.3, rtol=1e-6)  # beyond the border is the border


@pytest.mark.parametrize("noise", ["small", "enlarged"])
def test_the_joined_picture_has_the_noise_of_the_level_that_is_told(noise):
    made = drawn(noise=noise)
    level = np.asarray(made["level"])
    assert level.min() >= 0
    assert level.max() < 1000
    assert len(np.unique(level)) > 50
    np.testing.assert_array_equal(level, np.round(level))
    clean = jnp.asarray(small())
    clean = clean if noise == "small" else stretched(clean, 8, 8)
    zero = jnp.zeros_like(clean)
    alpha = np.asarray(sr.noised(clean, jnp.asarray(level), zero))
    if noise == "small":  # the enlarged picture's corners are pixels of the small one
        joined, alpha = np.asarray(made["joined"])[:, ::7, ::7], alpha[:, ::3, ::3]
    else:
        joined = np.asarray(made["joined"])
    sigma = np.asarray(sr.noised(jnp.zeros((64, 1, 1, 1)), jnp.asarray(level), jnp.ones((64, 1, 1, 1))))
    eps = (joined - alpha) / sigma
    assert abs(eps.std() - 1) < 0.05  # of 768 numbers or more
    assert abs(eps.mean()) < 0.1


def test_without_noise_and_blur_it_is_the_small_picture_enlarged():
    made = drawn(levels=0, net=dataclasses.replace(NET, augment=False))
    assert made.keys() == {"image", "joined"}
    np.testing.assert_allclose(made["joined"], stretched(jnp.asarray(small()), 8, 8), atol=1e-6)


def test_levels_and_blur_are_drawn_from_what_was_chosen():
    assert np.asarray(drawn(levels=10)["level"]).max() == 9
    off = {"levels": 0, "net": dataclasses.replace(NET, augment=False)}
    plain = np.asarray(drawn(**off)["joined"])
    changed = np.abs(np.asarray(drawn(**off, blur=(0.5, 1.0), blurred=0.5)["joined"]) - plain).max((1, 2, 3)) > 1e-3
    assert 0.3 < changed.mean() < 0.7
    every = np.asarray(drawn(**off, blur=(0.7, 0.7), blurred=1.0)["joined"])
    by_hand = sr.blurred(jnp.asarray(small()), jnp.full(64, 0.7), math.ceil(2.1))
    np.testing.assert_allclose(every, stretched(by_hand, 8, 8), atol=1e-5)


def test_one_example_is_spoilt_by_its_own_key():
    keys = jax.random.split(jax.random.key(0), 64)
    alone = MODEL._drawn(ASSETS, {}, {"image": jnp.asarray(IMAGE[5:6])}, keys[5:6])
    np.testing.assert_allclose(alone["joined"][0], drawn()["joined"][5], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low": 3}, "task.low is 3: expected a side that divides data.size 8"),
        ({"low": 8}, "task.low is 8: expected a side that divides"),
        ({"levels": 1001}, "task.levels is 1001: expected 0 to 1000"),
        ({"levels": 50}, "task.level is 100: expected 0 to 49"),
        ({"levels": 0}, "task.net.augment is True and task.levels 0"),
        ({"blur": (1.0, 0.5)}, r"task.blur is \(1.0, 0.5\)"),
        ({"blur": (0.0, math.inf)}, "task.blur is"),
        ({"blurred": 1.5}, "task.blurred is 1.5"),
    ],
)
def test_numbers_that_do_not_fit_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(MODEL, **changes).check(DataConfig(size=8), OptimizerConfig())
