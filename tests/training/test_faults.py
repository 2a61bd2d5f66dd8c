"""What a run does about steps that went wrong, by policy."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_task import MATRIX, TASK, Data, program

from jaxdiff.parallel import MeshSpec
from jaxdiff.training import (
    CheckpointConfig,
    NonFiniteLoss,
    OptimizerConfig,
    TrainConfig,
    Variables,
    fit,
    guarded,
    make_ema,
    make_init_state,
    make_optimizer,
    make_train_step,
)
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.faults import IN_A_ROW, TYPICAL, Watch
from jaxdiff.training.log import MetricsLog

SGD = OptimizerConfig(name="sgd", lr=1e-2, decay="constant", clip=0.0)
GOOD = {"loss": 1.0, "grad_norm": 2.0, "param_norm": 3.0}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_a_fault_and_named(name, value):
    assert f"{name} = {value}" in Watch(0.0).fault(GOOD | {name: value})


def test_a_spike_is_one_of_a_gradient_whose_usual_norm_is_known():
    watch = Watch(5.0)
    assert not watch.fault(GOOD | {"grad_norm": 1e6}), "the first steps of a run are as they are"
    for _ in range(TYPICAL):
        assert not watch.fault(GOOD)
    assert not watch.fault(GOOD | {"grad_norm": 9.0})
    assert "5 times the usual 2" in watch.fault(GOOD | {"grad_norm": 11.0})
    assert not Watch(0.0).fault(GOOD | {"grad_norm": 1e9})


def test_many_skipped_steps_in_a_row_stop_a_run():
    watch, skipped = Watch(0.0), GOOD | {"loss": math.nan, "skipped": 1.0}
    assert not any(watch.fault(skipped) for _ in range(IN_A_ROW - 1))
    assert "in a row" in watch.fault(skipped)
    assert not watch.fault(GOOD)
    assert not watch.fault(skipped)


def test_a_skipped_step_changes_nothing_but_the_count_of_steps():
    optimizer = guarded(make_optimizer(OptimizerConfig(lr=0.1), 10))
    step = jax.jit(make_train_step(TASK, optimizer, make_ema(0.9), skip=3.0))
    batch = next(Data(4))
    keys = lambda: jax.random.split(jax.random.key(0), 4)
    state = make_init_state(TASK, optimizer)(jax.random.key(1), {}, batch)
    first, metrics = step(state, batch, keys())
    assert metrics["skipped"] == 0
    assert first.opt_state["typical"] == metrics["grad_norm"]
    for bad in (math.nan, 1e3):
        worse, metrics = step(first, {name: x * bad for name, x in batch.items()}, keys())
        assert metrics["skipped"] == 1
        assert worse.step == first.step + 1
        same = jax.tree.map(jnp.array_equal, (worse.params, worse.opt_state), (first.params, first.opt_state))
        assert all(jax.tree.leaves(same))


class Broken(Data):
    """The toy data, of which batch `at` is not finite, each time that it comes."""

    def __init__(self, at):
        super().__init__(16)
        self.at = at

    def __next__(self):
        number, batch = self.count, super().__next__()
        return {name: x * np.float32(math.nan if number == self.at else 1.0) for name, x in batch.items()}


def train(workdir, faults, at=4, **kwargs):
    run = program(MeshSpec(), SGD, devices=jax.devices()[:1], **kwargs)
    config = TrainConfig(steps=8, batch_size=16, log_every=1, faults=faults)
    stream = Broken(at)
    state = fit(run, stream, jax.random.key(0), workdir, config, CheckpointConfig(every=2))
    return state, stream


FROZEN = dataclasses.replace(
    TASK, init=lambda key, loaded, batch: Variables(MATRIX.init(key, {}, batch).params, loaded), loss=MATRIX.loss
)
"""Has a weight that is loaded, which making the first state consumes."""


@pytest.mark.parametrize("task", [TASK, FROZEN], ids=["plain", "frozen"])
def test_a_rewound_run_goes_on_from_the_checkpoint_with_the_batches_after_the_bad_one(task, tmp_path):
    state, stream = train(tmp_path, "rewind", task=task, loaded={"bias": jnp.ones(3)} if task is FROZEN else None)
    assert state.step == 8
    assert stream.count >= 8 + 1, "the bad batch, and those since the checkpoint, are left out"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (event,) = (line for line in lines if "event" in line)
    assert (event["event"], event["step"], event["from"]) == ("rewind", 4, 5)
    assert "loss = nan" in event["because"]
    assert [line["step"] for line in lines if "loss" in line] == [*range(1, 9)]


def test_steps_that_a_rewind_lost_are_of_no_use(tmp_path, monkeypatch):
    """Each step is taken to last a second; step 5 is in the log when step 6 fails, and runs once more."""
    monkeypatch.setattr(MetricsLog, "seconds", property(lambda log: float(log.steps)))
    train(tmp_path, "rewind", at=5)
    with Checkpoints(tmp_path) as checkpoints:
        _, run = checkpoints.restore(program(MeshSpec(), SGD, devices=jax.devices()[:1]).like)
    assert run["clock"]["useful"] == 8


@pytest.mark.parametrize(("faults", "at"), [("stop", 4), ("rewind", 0)])
def test_a_run_that_may_not_or_cannot_go_back_stops(tmp_path, faults, at):
    with pytest.raises(NonFiniteLoss, match=f"step {at + 1}: loss = nan"):
        train(tmp_path, faults, at)
