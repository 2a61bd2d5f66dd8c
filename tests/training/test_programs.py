"""The programs of a run from a file: the same bits as those that are traced, and no network is traced."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_task import Data, matrix_loss

from jaxdiff.parallel import MeshSpec, compile, executable, place
from jaxdiff.training import (
    OptimizerConfig,
    Task,
    Variables,
    make_ema,
    make_init_state,
    make_optimizer,
    make_train_step,
    programs,
)

BATCH = 8
SPEC = MeshSpec(data=2, fsdp=4)


def init(key, loaded, batch):
    """Has all there is: what is drawn, what was loaded and is frozen, and what is moved by a rule."""
    return Variables({"w": jax.random.normal(key, (64, 64))}, dict(loaded), {"mean": jnp.mean(batch["image"])})


def loss(params, known, batch, keys):
    value, metrics, stats = matrix_loss(params, known, batch, keys)
    return value + jnp.sum(known.frozen["bias"]), {**metrics, "one": jnp.ones(())}, stats


TASK = Task(init=init, loss=loss, example=lambda one, rng: one)


def compiled(task):
    optimizer = make_optimizer(OptimizerConfig(), 10)
    make_step = functools.partial(make_train_step, task, optimizer, make_ema(0.9))
    bias, init_state = {"bias": jnp.arange(3.0)}, make_init_state(task, optimizer)
    loaded = jax.device_put(bias, place(SPEC)(bias))
    return compile(make_step, init_state, loaded, next(Data(BATCH)), SPEC), init_state


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    traced, init_state = compiled(TASK)
    arguments = programs.arguments(traced, BATCH)
    like, _, batch, keys = arguments
    _, metrics = jax.eval_shape(traced.jitted, like, batch, keys)
    at = jax.tree.map(lambda leaf: leaf.sharding, like)
    everywhere = jax.tree.map(lambda _: like.step.sharding, metrics)
    lowered = programs.lower_start(init_state, arguments)
    lowered["step"] = executable.lower(traced.jitted, (like, batch, keys), (at, everywhere))
    variables = Variables(*(jax.tree.map(jnp.zeros_like, x) for x in (like.params, like.frozen, like.extra)))
    notes = {"metrics": sorted(metrics), "variables": programs.shapes(variables)}
    path = tmp_path_factory.mktemp("file") / "run.executable"
    with executable.uncached():
        made = {name: one.compile() for name, one in lowered.items()}
    executable.save(path, made, executable.key("toy", like, traced.mesh, "cpu"), notes)
    return path


def test_a_run_from_a_file_has_the_bits_of_one_that_is_traced(file):
    def refuse(*_):
        pytest.fail("the network is traced")

    saved = executable.read(file)
    task = programs.described(dataclasses.replace(TASK, init=refuse, loss=refuse), saved.notes["variables"])
    results = []
    for start in (lambda: compiled(TASK)[0], lambda: programs.loaded(compiled(task)[0], saved, BATCH)):
        np.testing.assert_array_equal(start().frozen(jax.random.key(0))["bias"], [0, 1, 2])
        run = start()  # anew: what was loaded is consumed
        state, data = run.init(jax.random.key(0)), Data(BATCH)
        for step in range(3):
            state, metrics = run.step(state, run.put(next(data)), run.keys(jax.random.key(1), step, BATCH))
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == run.shardings
        results.append(jax.tree.map(np.asarray, (state, metrics)))
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_other_trees_than_dictionaries_are_refused():
    with pytest.raises(ValueError, match=r"params/net is list: expected arrays in dictionaries"):
        programs.shapes(Variables({"net": [jnp.zeros(2)]}))
