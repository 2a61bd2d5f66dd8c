"""What goes wrong at neighbours, over every task on a model of others, with the networks themselves.

cloneofsimo/lora 26, kohya-ss/sd-scripts 91 and 890, diffusers 4632, 5840 and 6402: parts that do not train, or do so
only without rematerialisation, or no more after resuming.
"""

import dataclasses
import functools
import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from jax.tree_util import keystr
from tasks import published_cases as cases
from tasks.published_cases import FINE, TASKS, batch_of, made, started

from jaxdiff import training
from jaxdiff.pretrained.rules import flatten
from jaxdiff.training.checkpoint import Checkpoints

pytestmark = pytest.mark.heavy
KEYS = 4
SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return cases.save(tmp_path_factory.mktemp("models"))


def step_of(task, optimizer):
    return jax.jit(training.make_train_step(task, optimizer, training.make_ema(0.5)))


def go(step, task, state, numbers):
    for n in numbers:
        state, _ = step(state, batch_of(task, n), jax.random.split(jax.random.key(n), KEYS))
    return state


@pytest.mark.parametrize("name", TASKS)
def test_every_part_moves_with_rematerialisation_or_without_and_after_resuming(name, model, tmp_path):
    after, runs = {}, {}
    for remat in ("none", "blocks"):
        task, _ = made(cases.fitted(name, model, remat=remat), tmp_path)
        optimizer, first = started(task)
        runs[remat] = functools.partial(go, step_of(task, optimizer), task)
        after[remat] = runs[remat](first, [0, 1, 2])  # the first of a ControlNet's layers wait for the last
    # moments, not weights: Adam makes as much of a gradient that is all rounding as of any other
    one, other = (run(after["none"], [3]).opt_state for run in runs.values())
    for (path, x), y in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        if not keystr(path, simple=True, separator="/").endswith(
            "attn/k/bias"
        ):  # zero, since a softmax does not see it
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * np.abs(x).max(), err_msg=keystr(path))
    other = flatten(after["blocks"].params)
    for path, x in other.items():
        moved = np.any(np.asarray(x) != np.asarray(flatten(first.params)[path]))
        assert moved or path.endswith("attn/k/bias"), f"{path} does not train"
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(dataclasses.replace(after["blocks"], frozen={}), {}, None)
        checkpoints.wait()
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), first)
        read, _ = checkpoints.restore(like)
    again = dataclasses.replace(read, frozen=started(task)[1].frozen)
    whole, resumed = runs["blocks"](after["blocks"], [3]), runs["blocks"](again, [3])
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
    for path, x in flatten(resumed.params).items():
        assert np.any(np.asarray(x) != np.asarray(other[path])) or path.endswith("attn/k/bias"), path


def test_what_is_frozen_takes_no_gradient(model, tmp_path):
    """A third of the work of training is the gradient of weights: a LoRA's step makes none, and keeps none.

    A step of all weights makes of each kernel a gradient, Adam's two moments and an update; one of a LoRA needs a
    part of the same activations.
    """
    flops, kept = {}, {}
    whole = dataclasses.replace(FINE, train=("unet/.*", "text_encoder/.*"))
    for name, config in {"all": whole, "lora": dataclasses.replace(TASKS["lora"], parts=("attention",))}.items():
        task, _ = made(dataclasses.replace(config, model=model), tmp_path / name)
        optimizer, state = started(task)
        keys = jax.random.split(jax.random.key(0), KEYS)
        compiled = step_of(task, optimizer).lower(state, batch_of(task), keys).compile()
        flops[name] = compiled.cost_analysis()["flops"]
        kept[name] = compiled.memory_analysis().temp_size_in_bytes
    assert flops["lora"] < 0.8 * flops["all"]
    assert kept["lora"] < kept["all"]


def test_a_step_of_stable_diffusions_size_keeps_no_gradient_of_frozen_weights():
    """A LoRA at 32x32 latents, batch 1, in float32; compiled from shapes, of which nothing is allocated."""
    spec = importlib.util.spec_from_file_location("benchmark_lora", SCRIPTS / "benchmark_lora.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    memory = script.compiled(script.described()).memory_analysis()
    held, own = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    assert held > 3.8e9  # the weights, all but 13 MB of them frozen
    assert own < 0.4 * held
    assert held + own + memory.output_size_in_bytes - memory.alias_size_in_bytes < 9e9
