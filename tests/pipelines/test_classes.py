"""Pipelines of models that know classes, or nothing; what guidance 1 means."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import prediction
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pipelines.text_to_image import Pipeline
from jaxdiff.tasks.picture import Model, ProcessConfig, make_task, network, to_pixels
from jaxdiff.typing import Cond

CLASSES = ("cat", "dog", "frog")
BY_CLASS = Model(
    ProcessConfig(prediction="x0", condition="class"),
    UNetConfig(
        channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=4, labels=3
    ),
    TextConfig(),
    4,
)
FREE = dataclasses.replace(
    BY_CLASS,
    process=dataclasses.replace(BY_CLASS.process, condition="none"),
    unet=dataclasses.replace(BY_CLASS.unet, labels=0),
)


def weights(model):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(make_task(model).init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.2, jnp.float32), shapes)


def test_guidance_of_one_is_the_model_without_guidance():
    params, pipe = weights(BY_CLASS), Pipeline(BY_CLASS, weights(BY_CLASS), labels=CLASSES)
    noise = np.random.default_rng(1).normal(size=(3, 4, 4, 3)).astype(np.float32)
    guided = pipe(CLASSES, key=jax.random.key(0), steps=3, guidance=1.0, init_noise=noise)
    cond = Cond(label=jnp.arange(3))
    denoise = prediction.denoiser(network(BY_CLASS), params, cond, pipe.schedule, "x0")
    table = sampling.make_table("ddim", pipe.schedule, 3)
    keys = jax.random.split(jax.random.key(0), 3)
    clipped = lambda *args: jnp.clip(denoise(*args), -1, 1)
    plain = jax.jit(lambda noise, keys: sampling.run(table, clipped, sampling.start(pipe.schedule, table, noise), keys))
    # a number next to a half may round the other way
    assert np.abs(guided.astype(int) - np.asarray(to_pixels(plain(noise, keys))).astype(int)).max() <= 1
    assert guided.std() > 10
    strong = pipe(CLASSES, key=jax.random.key(0), steps=3, guidance=5.0, init_noise=noise)
    assert np.abs(guided.astype(int) - strong.astype(int)).max() > 1


def test_classes_go_by_name():
    pipe = Pipeline(BY_CLASS, weights(BY_CLASS), labels=CLASSES)
    options = {"steps": 2, "init_noise": np.ones((2, 4, 4, 3)), "guidance": 1.0}
    dog, again = pipe(["dog", "dog"], key=jax.random.key(0), **options)
    np.testing.assert_array_equal(dog, again)
    assert not np.array_equal(pipe(["cat", "frog"], key=jax.random.key(0), **options)[0], dog)
    with pytest.raises(ValueError, match=r"'dgo' is no class of this model: expected one of .*dog"):
        pipe("dgo", key=jax.random.key(0), steps=2)


def test_a_model_that_knows_nothing_takes_any_prompt():
    pipe = Pipeline(FREE, weights(FREE))
    one, two = (pipe(prompt, key=jax.random.key(0), steps=2) for prompt in ("", "anything"))
    assert one.shape == (1, 4, 4, 3)
    np.testing.assert_array_equal(one, two)
    assert pipe.cut("anything") == ""
