"""GLIDE's training: what the network is told, what it begins as, and what is refused."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data.config import DataConfig
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.tasks import glide, picture
from jaxdiff.tasks.teacher import Teacher
from jaxdiff.training import Known, OptimizerConfig
from jaxdiff.typing import Cond

MODEL = glide.Config(
    net=UNetConfig(
        channels=(8,), layers=1, attention=("joint",), mid_attention="none", heads=(2,), depth=(1,), patch=2, groups=4,
        addition="plain",
    ),
    text=TextConfig(vocabulary=260, length=6, width=8, layers=1, heads=2, filled=True, projection=32),
    vocabulary=260,
)  # fmt: skip
FILLS = dataclasses.replace(MODEL, fills=True)
ASSETS = picture.Assets(8, BytePair(()))
NOTHING = Known({}, {}, {}, 0)


def batch():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    mask = np.zeros((2, 8, 8, 1), np.uint8)
    mask[:, :, 4:] = 1
    words = [BytePair(()).encode(text, 6) for text in ("ab", "c")]
    return {"image": image, "tokens": np.stack(words), "mask": mask}


def weights(task):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(task.task(ASSETS).init, jax.random.key(0), {}, batch()).params
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.2, jnp.float32), shapes)


def loss_of(task, data):
    loss = jax.jit(task.task(ASSETS).loss)
    params = weights(task)
    return lambda data: float(loss(params, NOTHING, data, jax.random.split(jax.random.key(1), 2))[0].mean())


def test_nothing_of_the_hole_is_told():
    data = batch()
    other = {**data, "image": np.where(data["mask"] > 0, 255 - data["image"], data["image"])}
    told = [FILLS._cond(ASSETS, weights(FILLS), {}, jax.tree.map(jnp.asarray, one)).image for one in (data, other)]
    np.testing.assert_array_equal(told[0], told[1])
    np.testing.assert_array_equal(told[0][..., 3:], 1 - data["mask"])
    np.testing.assert_allclose(told[0][:, :, :4, :3], data["image"][:, :, :4] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_a_caption_that_is_left_out_changes_nothing(drop):
    data = batch()
    loss = loss_of(dataclasses.replace(MODEL, drop=drop), data)
    other = {**data, "tokens": data["tokens"][::-1]}
    assert (loss(data) == loss(other)) == (drop == 1.0)


def test_a_fifth_of_the_captions_is_left_out():
    assert glide.Config().drop == 0.2


def test_a_model_that_fills_begins_as_one_that_does_not():
    plain = weights(MODEL)
    wide = glide.widened(plain, MODEL.net.patch)
    assert jax.tree.map(jnp.shape, wide) == jax.tree.map(jnp.shape, weights(FILLS))
    context, pooled = jnp.ones((2, 3, 8)), jnp.ones((2, 32))
    x, known = (
        jnp.asarray(np.random.default_rng(n).normal(size=(2, 8, 8, c)), jnp.float32) for n, c in ((0, 3), (1, 4))
    )
    call = jax.jit(lambda params, image: UNet(MODEL.net).apply(
        {"params": params["unet"]}, x, jnp.ones(2), Cond(context=context, pooled=pooled, image=image)
    ))  # fmt: skip
    np.testing.assert_allclose(call(wide, known), call(plain, None), atol=1e-5)


def check(task, size=8):
    task.check(DataConfig(name="openmoji", size=size), OptimizerConfig())


def changed(**more):
    net = {name: more.pop(name) for name in ("addition", "pooled", "attention") if name in more}
    text = {name: more.pop(name) for name in ("filled", "projection") if name in more}
    return dataclasses.replace(
        MODEL, net=dataclasses.replace(MODEL.net, **net), text=dataclasses.replace(MODEL.text, **text), **more
    )


def test_numbers_that_fit_are_accepted():
    check(MODEL)
    check(FILLS)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (changed(condition="none"), "task.condition is 'none'"),
        (changed(addition=""), "task.net.addition is ''"),
        (changed(pooled=True), "task.net.pooled True"),
        (changed(filled=False), "task.text.filled is False"),
        (changed(projection=16), "expected True and 32"),
        (changed(attention=("cross",)), "task.net.attention is"),
        (changed(attention=("none",)), "task.net.attention is"),
        (changed(fills=True, whole=1.5), "task.whole is 1.5"),
        (changed(begin=pathlib.Path("run")), "set task.fills to True"),
        (changed(fills=True, begin=pathlib.Path("nowhere")), "task.begin is nowhere, not a run"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(task, says):
    with pytest.raises((ValueError, FileNotFoundError), match=r"task\.") as error:
        check(task)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("other", "size", "says"),
    [
        (FILLS, 8, "does not fill"),
        (MODEL, 16, "its data.size differ"),
        (dataclasses.replace(MODEL, vocabulary=300), 8, "its task.vocabulary differ"),
        (changed(projection=16), 8, "its task.text differ"),
    ],
)
def test_another_model_to_begin_as_is_refused(other, size, says):
    with pytest.raises(ValueError, match=r"task\.begin is run") as error:
        FILLS._check_begin(Teacher(pathlib.Path("run"), other, size), 8)
    assert says in str(error.value)
