"""Training and sampling mix no dtypes: both are traced under strict promotion, and nothing is compiled.

In float32, that is: Flax's own layers mix bfloat16 with their float32 statistics.
"""

import jax
import numpy as np
import pytest
from pipelines import own

from jaxdiff.data.tokenizer import BytePair
from jaxdiff.pipelines.program import make_program
from jaxdiff.tasks import picture
from jaxdiff.training import Known


def of(told):
    """A task, and a batch for it."""
    condition = {"text": "text", "class": "class", "nothing": "none"}[told]
    config = picture.Config(net=own.NETS[told], text=own.WORDS, condition=condition)
    labels = own.CLASSES if told == "class" else ()
    task = config.task(picture.Assets(8, BytePair(()) if told == "text" else None, labels))
    batch = {"image": np.zeros((2, 8, 8, 3), np.uint8)}
    batch |= {"tokens": np.zeros((2, 8), np.int32)} if told == "text" else {}
    batch |= {"label": np.zeros(2, np.int32)} if told == "class" else {}
    return task, batch


@pytest.mark.parametrize("told", own.NETS)
def test_a_loss_and_its_gradient(told):
    task, batch = of(told)
    with jax.numpy_dtype_promotion("strict"):
        weights = jax.eval_shape(task.init, jax.random.key(0), {}, batch)
        known = Known(weights.frozen, weights.extra, weights.params, np.int32(0))
        loss = lambda params, batch, keys: task.loss(params, known, batch, keys)[0]
        gradient = jax.eval_shape(jax.grad(loss), weights.params, batch, jax.random.split(jax.random.key(0), 2))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype("float32")}


@pytest.mark.parametrize(("told", "sampler"), [("nothing", "ddpm"), ("class", "dpmpp_2m"), ("text", "ddim")])
def test_a_sample(told, sampler):
    pipe = own.pipeline(told)
    shapes = []

    def trace(params, batch, host=True):
        with jax.numpy_dtype_promotion("strict"):
            shapes.append(jax.eval_shape(make_program(pipe.model), params, batch))
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes[-1])

    pipe._run = trace
    pipe({"text": ["red"], "class": ["dog"], "nothing": [""]}[told], key=jax.random.key(0), steps=2, sampler=sampler)
    assert (shapes[0]["pixels"].dtype, shapes[0]["pixels"].shape) == (np.uint8, (1, 8, 8, 3))
