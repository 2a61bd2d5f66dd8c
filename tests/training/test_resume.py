"""A run that is stopped and started again ends with the bits of one that was not."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from toy_task import Data, program

from jaxdiff.parallel import MeshSpec
from jaxdiff.training import CheckpointConfig, TrainConfig, fit
from jaxdiff.training.checkpoint import Checkpoints, steps

STEPS = 40


def run(workdir, pause):
    script = str(pathlib.Path(__file__).with_name("toy_run.py"))
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    command = [sys.executable, script, str(workdir), str(STEPS), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(process, workdir, step):
    """Returns when the log has reached `step`; it may hold a line that is being written."""
    until = time.monotonic() + 120
    while (
        f'"step": {step}' not in (workdir / "metrics.jsonl").read_text()
        if (workdir / "metrics.jsonl").exists()
        else True
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def final(workdir):
    like = jax.eval_shape(program().init, jax.random.key(0))
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest.name == str(STEPS)
        state, _ = checkpoints.restore(like)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def assert_same(workdir, uninterrupted):
    for ours, theirs in zip(final(workdir), final(uninterrupted), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    numbers = [line["step"] for line in lines(workdir)]
    assert numbers == sorted(set(numbers))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    train = TrainConfig(steps=STEPS, batch_size=8, log_every=2)
    fit(program(), Data(8), jax.random.key(0), workdir, train, CheckpointConfig(every=3, keep=2))
    return workdir


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path, uninterrupted):
    chance = random.Random()
    for first in (4, 16):
        process = run(tmp_path, 0.03)
        wait_for_step(process, tmp_path, first + 2 * chance.randrange(5))
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait()
        assert STEPS not in steps(tmp_path / "checkpoints")
    process = run(tmp_path, 0)
    assert process.wait() == 0, process.communicate()
    assert_same(tmp_path, uninterrupted)

    def timeless(line):
        return {name: value for name, value in line.items() if name != "images_per_second"}

    assert list(map(timeless, lines(tmp_path))) == list(map(timeless, lines(uninterrupted)))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_at_hand_and_exits_with_0(number, tmp_path, uninterrupted):
    process = run(tmp_path, 0.03)
    wait_for_step(process, tmp_path, 8)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 0, err
    stopped = int(out)
    assert 8 <= stopped < STEPS
    assert steps(tmp_path / "checkpoints")[-1] == stopped
    process = run(tmp_path, 0)
    assert process.wait() == 0, process.communicate()
    assert_same(tmp_path, uninterrupted)


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
