"""Processes on loopback, with four devices each, train what one device trains, and notice when one of them is lost."""

import json
import pathlib
import signal
import time

import jax
import numpy as np
import pytest
import together
from toy_task import MATRIX, TASK, Data, program
from two_processes import BATCH, SGD, Logged, Pictures

from jaxdiff import data
from jaxdiff.data.source import DataConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.training import TrainConfig, fit
from jaxdiff.training.checkpoint import Checkpoints, steps


def start(kind, workdir, steps, mesh=(), seconds=0.0, count=2):
    script = pathlib.Path(__file__).with_name("two_processes.py")
    return together.start(script, kind, workdir, steps, seconds, *mesh, count=count, devices=4)


def finish(processes):
    """The step each process stopped at."""
    return [int(out.split()[-1]) for out in together.finish(processes)]


def wait_for_step(processes, workdir, step):
    until = time.monotonic() + 300
    while not ((workdir / "metrics.jsonl").exists() and f'"step": {step},' in (workdir / "metrics.jsonl").read_text()):
        assert time.monotonic() < until
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.02)


def restore(workdir, task):
    run = program(MeshSpec(), SGD, devices=jax.devices()[:1], task=task)
    with Checkpoints(workdir) as checkpoints:
        state, _ = checkpoints.restore(run.like)
    return state


def one_device(workdir, stream, steps, task):
    run = program(MeshSpec(), SGD, devices=jax.devices()[:1], task=task)
    train = TrainConfig(steps=steps, batch_size=BATCH)
    return jax.tree.map(np.asarray, fit(run, stream, jax.random.key(0), workdir, train))


def assert_close(state, other):
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-6 * np.linalg.norm(theirs)


@pytest.mark.slow
def test_two_processes_train_the_parameters_of_one_device(tmp_path):
    """Three steps with the state split over both processes, two more on another mesh, read here on one device."""
    assert finish(start("toy", tmp_path / "two", 3, (1, -1, 1))) == [3, 3]
    assert finish(start("toy", tmp_path / "two", 5, (-1, 2, 2))) == [5, 5]
    assert_close(restore(tmp_path / "two", TASK), one_device(tmp_path / "one", Data(BATCH), 5, TASK))
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]  # one process writes


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_at_one_step(tmp_path):
    processes = start("toy", tmp_path, 400, (), 0.05)
    wait_for_step(processes, tmp_path, 4)
    processes[1].send_signal(signal.SIGTERM)
    first, second = finish(processes)
    assert first == second < 400
    assert steps(tmp_path / "checkpoints") == [first]


def assert_says_lost(process, lost, within):
    began = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert time.monotonic() - began < within
    assert process.returncode == 1, err
    assert f"jaxdiff: process {lost} of 2 is lost, so process {1 - lost} ends." in err.splitlines()[-1]
    assert "from the last checkpoint" in err.splitlines()[-1]
    return err


@pytest.mark.slow
def test_a_lost_process_ends_the_other_and_one_alone_goes_on_with_the_same_batches(tmp_path):
    processes = start("pictures", tmp_path / "run", 400, (), 0.1)
    wait_for_step(processes, tmp_path / "run", 5)
    processes[1].kill()
    err = assert_says_lost(processes[0], 1, within=60)
    assert "stack trace" not in err
    stopped = steps(tmp_path / "run" / "checkpoints")[-1]
    assert finish(start("pictures", tmp_path / "run", stopped + 4, count=1)) == [stopped + 4]

    whole = data.batches(Pictures(), DataConfig(workers=0), batch_size=BATCH, seed=3)
    expected = [next(whole)["index"].tolist() for _ in range(stopped + 4)]
    seen = {}
    for path in (tmp_path / "run").glob("ids*.jsonl"):
        for number, index, count, ids in map(json.loads, path.read_text().splitlines()):
            share = BATCH // count
            if number < len(expected):  # beyond lie steps that were lost with the process
                assert ids == expected[number][index * share :][:share]
            seen.setdefault(count, []).append(number)
    assert seen[1] == list(range(stopped, stopped + 4))  # none left out, none twice
    assert set(seen[2]) >= set(range(stopped))
    alone = Logged(0, 1, 0.0, tmp_path / "ids")
    assert_close(restore(tmp_path / "run", MATRIX), one_device(tmp_path / "one", alone, stopped + 4, MATRIX))


@pytest.mark.slow
def test_where_the_first_process_is_lost_the_other_says_so(tmp_path):
    processes = start("pictures", tmp_path, 400, (), 0.1)
    wait_for_step(processes, tmp_path, 2)
    processes[0].kill()
    assert_says_lost(processes[1], 0, within=60)
