"""The real network under every strategy, and what conditions do."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdiff import parallel, training
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec, rules
from jaxdiff.tasks.picture import Model, ProcessConfig, inputs_of, make_task, nothing

MODEL = Model(
    ProcessConfig(prediction="v", drop=0.3),
    UNetConfig(
        channels=(8, 16), layers=1, attention=("none", "cross"), mid_attention="none", heads=(1, 2), depth=(1, 1),
        groups=4, pooled=True, dropout=0.1,
    ),
    TextConfig(vocabulary=20, length=6, width=8, layers=1, heads=2),
    8,
)  # fmt: skip
EMPTY = np.array([1, 2, 0, 0, 0, 0], np.int32)


def batch(size=8):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8),
        "tokens": rng.integers(1, 20, (size, 6)).astype(np.int32),
        "label": rng.integers(0, 4, size).astype(np.int32),
    }


def weights(task):
    """Nowhere zero; constants, since drawing them on eight devices takes longer to compile than the step."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.2, jnp.float32), shapes)


@functools.cache
def trained(spec, devices):
    """Parameters after 5 steps of SGD, which unlike Adam sees the scale of gradients."""
    optimizer = optax.sgd(0.1)
    task = make_task(MODEL, EMPTY)

    program = parallel.compile(
        functools.partial(training.make_train_step, task.loss, optimizer, training.make_ema(0.9)),
        training.make_init_state(lambda key: weights(task), optimizer),
        spec,
        devices=jax.devices()[:devices],
    )
    state = program.init(jax.random.key(0))
    root = jax.random.key(1)
    for step in range(5):
        state, _ = program.step(state, program.put(batch()), program.keys(root, step, 8))
    return jax.device_get(state.params)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [MeshSpec(), MeshSpec(data=1, fsdp=8), MeshSpec(2, 2, 2), "pmap"])
def test_every_strategy_trains_the_same_parameters(monkeypatch, spec):
    monkeypatch.setattr(rules, "SMALLEST", 64)  # so that these small weights are split too
    for ours, one in zip(jax.tree.leaves(trained(spec, 8)), jax.tree.leaves(trained(MeshSpec(), 1)), strict=True):
        assert np.linalg.norm(ours - one) <= 1e-5 * np.linalg.norm(one)


def value(model, data, seed=0, empty=EMPTY):
    task = make_task(model, empty)
    params = weights(task)
    keys = jax.random.split(jax.random.key(seed), len(data["image"]))
    return float(jax.jit(task.loss)(params, data, keys)[0])


def with_process(model, **changes):
    return dataclasses.replace(model, process=dataclasses.replace(model.process, **changes))


def test_a_dropped_condition_is_the_empty_text():
    data = batch()
    empty = {**data, "tokens": np.broadcast_to(EMPTY, data["tokens"].shape)}
    always, never = with_process(MODEL, drop=1.0), with_process(MODEL, drop=0.0)
    np.testing.assert_allclose(value(always, data), value(never, empty), rtol=1e-6)
    assert value(never, data) != value(never, empty)


def test_padding_to_a_longer_text_changes_nothing():
    data = batch()
    data["tokens"][:, 4:] = 0
    short = {**data, "tokens": data["tokens"][:, :4]}
    np.testing.assert_allclose(value(MODEL, data), value(MODEL, short, empty=EMPTY[:4]), rtol=1e-5)


@pytest.mark.parametrize(("condition", "labels"), [("class", 4), ("none", 0)])
def test_class_and_no_condition(condition, labels):
    unet = dataclasses.replace(MODEL.unet, labels=labels, pooled=False, attention=("none", "self"))
    model = dataclasses.replace(with_process(MODEL, condition=condition), unet=unet)
    assert np.isfinite(value(model, batch(), empty=None))
    inputs = inputs_of(model, jax.tree.map(jnp.asarray, batch()))
    assert all((x == labels).all() for x in jax.tree.leaves(nothing(model, inputs, None)))


def test_text_is_read():
    data = batch()
    other = {**data, "tokens": data["tokens"][::-1].copy()}
    assert value(MODEL, data) != value(MODEL, other)
