"""The same parameters whatever the devices and the parts of the batch.

Under SGD, for Adam does not see the scale of the gradients: a sum in place of a mean would pass.
"""

import jax
import numpy as np
import pytest
from toy_task import Data, program

from jaxdiff.parallel import MeshSpec
from jaxdiff.training import OptimizerConfig

ROUNDING = 3e-6
"""Five steps that sum 500 positions in another order; a sum in place of a mean is off by 1e-2 and more."""

SGD = OptimizerConfig(name="sgd", lr=1e-2, decay="constant", clip=0.0)


def train(spec, optimizer=SGD, devices=None, accumulate=1, steps=5, batch=32):
    run = program(spec, optimizer, accumulate=accumulate, devices=devices)
    state, data = run.init(jax.random.key(0)), Data(batch)
    root = jax.random.key(1)
    for step in range(steps):
        state, _ = run.step(state, run.put(next(data)), run.keys(root, step, batch))
    return jax.tree.map(np.asarray, (state.params, state.ema_params))


def distance(tree, other):
    """The largest difference of a leaf relative to its size."""
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in leaves)


@pytest.fixture(scope="module")
def one_device():
    return train(MeshSpec(), devices=jax.devices()[:1])


@pytest.mark.parametrize(
    ("spec", "accumulate"),
    [
        ("pmap", 1),
        ("pmap", 4),
        (MeshSpec(data=8), 1),
        (MeshSpec(data=8), 4),
        (MeshSpec(data=1, fsdp=8), 1),
        (MeshSpec(data=2, fsdp=2, tensor=2), 1),
        (MeshSpec(data=2, fsdp=2, tensor=2), 4),
    ],
    ids=str,
)
def test_eight_devices_train_the_parameters_of_one(spec, accumulate, one_device):
    off = distance(train(spec, accumulate=accumulate), one_device)
    assert off < ROUNDING


def test_accumulation_on_one_device(one_device):
    off = distance(train(MeshSpec(), devices=jax.devices()[:1], accumulate=4), one_device)
    assert off < ROUNDING


def test_training_moves_the_parameters(one_device):
    start = program(MeshSpec()).init(jax.random.key(0)).params
    assert distance(one_device[0], start) > 1e-2


def test_accumulation_moves_no_examples_between_devices():
    run, batch = program(MeshSpec(), accumulate=2), Data(32)
    args = run.init(jax.random.key(0)), run.put(next(batch)), run.keys(jax.random.key(1), 0, 32)
    text = run.jitted.lower(*args).compile().as_text()
    assert "all-reduce" in text
    assert not [name for name in ("all-to-all", "all-gather", "collective-permute") if name in text]


def test_each_of_eight_devices_holds_less_than_a_sixth_of_the_state():
    """By the compiler: parameters, optimizer and average together."""
    run = program(MeshSpec(data=1, fsdp=8))
    given = run.put(next(Data(8))), run.keys(jax.random.key(1), 0, 8)
    held = run.jitted.lower(run.like, *given).compile().memory_analysis().argument_size_in_bytes
    of_batch = 8 * 8 * 3 * 4 + 2 * 4
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run.like))
    assert state / 8 < held - of_batch < state / 6
