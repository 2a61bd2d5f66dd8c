"""A run that is stopped and started again ends with the bits of one that was not."""

import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from toy_task import MATRIX, Data, program

from jaxdiff.parallel import MeshSpec
from jaxdiff.training import CheckpointConfig, TrainConfig, fit, manifest
from jaxdiff.training.checkpoint import Checkpoints, steps

STEPS = 40
heavy = pytest.mark.heavy


def run(workdir, *slow, steps=STEPS):
    script = str(pathlib.Path(__file__).with_name("toy_run.py"))
    command = [sys.executable, script, str(workdir), str(steps), *map(str, slow)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(process, workdir, step):
    """Returns when the log has a line of `step`; it may hold another that is being written."""
    path, until = workdir / "metrics.jsonl", time.monotonic() + 300
    while not (path.exists() and f'"step": {step},' in path.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def final(workdir, steps):
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest.name == str(steps)
        state, _ = checkpoints.restore(program(task=MATRIX).like)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def timeless(workdir):
    """The metrics that do not come from a clock."""
    measured = ("images_per", "step_seconds", "input_wait", "goodput", "stall")
    return [{name: x for name, x in line.items() if not name.startswith(measured)} for line in lines(workdir)]


def assert_same(workdir, uninterrupted, steps=STEPS):
    for ours, theirs in zip(final(workdir, steps), final(uninterrupted, steps), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def train_matrix(workdir, steps=STEPS):
    train = TrainConfig(steps=steps, batch_size=8, log_every=2)
    fit(program(task=MATRIX), Data(8), jax.random.key(0), workdir, train, CheckpointConfig(every=3, keep=2))
    return workdir


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train_matrix(tmp_path_factory.mktemp("uninterrupted"))


def kill_at_random(workdir, chance, total):
    """Starts a run, kills it at some moment within the next steps, and checks that no checkpoint was lost."""
    before = steps(workdir / "checkpoints")
    begun = before[-1] if before else 0
    at = begun + chance.randrange(1, 5)
    process = run(workdir, at + 2, steps=total)
    wait_for_step(process, workdir, at + at % 2)
    time.sleep(chance.uniform(0, 0.1))  # of saving every third step: some are under way
    process.kill()
    process.communicate()
    after = steps(workdir / "checkpoints")
    assert total not in after
    assert after[-1:] >= before[-1:]
    for step in after:
        assert manifest.check(workdir / "checkpoints" / str(step))


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path, uninterrupted):
    chance = random.Random()
    for _ in range(3):
        kill_at_random(tmp_path, chance, STEPS)
    process = run(tmp_path)
    assert process.wait() == 0, process.communicate()
    assert_same(tmp_path, uninterrupted)
    assert timeless(tmp_path) == timeless(uninterrupted)


@heavy
def test_fifty_sigkills_at_random_moments(tmp_path):
    chance, total, saving = random.Random(), 400, 0
    for _ in range(50):
        kill_at_random(tmp_path / "killed", chance, total)
        saving += any((tmp_path / "killed" / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
    assert saving >= 5  # kills that met a save under way
    process = run(tmp_path / "killed", steps=total)
    assert process.wait() == 0, process.communicate()
    assert_same(tmp_path / "killed", train_matrix(tmp_path / "whole", total), total)
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_at_hand_and_exits_with_0(number, tmp_path, uninterrupted):
    process = run(tmp_path, 10)
    wait_for_step(process, tmp_path, 8)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 0, err
    stopped = int(out)
    assert 8 <= stopped < STEPS
    assert steps(tmp_path / "checkpoints")[-1] == stopped
    if number == signal.SIGTERM:
        process = run(tmp_path)
        assert process.wait() == 0, process.communicate()
        assert_same(tmp_path, uninterrupted)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / str(STEPS) / "run" / "metadata").write_text("{}")
    with pytest.warns(UserWarning, match=rf"checkpoints/{STEPS} is damaged \(changed: run/metadata\).*/39 is taken"):
        train_matrix(tmp_path / "run")
    assert_same(tmp_path / "run", uninterrupted)
    assert timeless(tmp_path / "run") == timeless(uninterrupted)


def go(workdir, steps, spec=None, **kwargs):
    train = TrainConfig(steps=steps, batch_size=16, log_every=1)
    return fit(program(spec, **kwargs), Data(16), jax.random.key(0), workdir, train, CheckpointConfig(every=100))


def test_a_run_goes_on_from_another_mesh_and_from_a_write_that_was_killed(tmp_path):
    go(tmp_path / "a", 4)
    go(tmp_path / "b", 1, MeshSpec(data=2, fsdp=2, tensor=2))
    (tmp_path / "b" / "checkpoints" / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 7.0}\n{"step": 3, "lo')
    go(tmp_path / "b", 2, MeshSpec(data=1, fsdp=8))
    one = jax.devices()[:1]
    go(tmp_path / "b", 3, devices=one)
    state = go(tmp_path / "b", 4, "pmap")
    whole = go(tmp_path / "a", 4)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(
            ours, theirs, rtol=2e-4, atol=2e-5
        )  # Adam magnifies the last bits of small gradients
    assert [line["step"] for line in lines(tmp_path / "b")] == [1, 2, 3, 4]
    losses = [[line["loss"] for line in lines(tmp_path / name)] for name in "ab"]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert steps(tmp_path / "b" / "checkpoints") == [2, 3, 4]


def test_a_finished_run_is_left_as_it_is(tmp_path):
    go(tmp_path, 2)
    before = lines(tmp_path)
    assert int(go(tmp_path, 2).step) == 2
    assert int(go(tmp_path, 1).step) == 2
    assert lines(tmp_path) == before
    assert steps(tmp_path / "checkpoints") == [2]


def test_the_key_of_the_run_is_in_the_checkpoint(tmp_path):
    go(tmp_path / "a", 4)
    go(tmp_path / "b", 2)
    train = TrainConfig(steps=4, batch_size=16)
    other = fit(program(), Data(16), jax.random.key(99), tmp_path / "b", train)
    for ours, theirs in zip(jax.tree.leaves(other), jax.tree.leaves(go(tmp_path / "a", 4)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
