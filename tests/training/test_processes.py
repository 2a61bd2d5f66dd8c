"""Processes on loopback train what one device trains, and notice when one of them is lost."""

import json
import pathlib
import signal
import time

import jax
import numpy as np
import pytest
import together
from one_process import BATCH, SGD, Logged, Pictures
from toy_task import MATRIX, TASK, Data, program

from jaxdiff import data
from jaxdiff.data.source import DataConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.training import TrainConfig, fit
from jaxdiff.training.checkpoint import Checkpoints, steps


def start(kind, workdir, steps, mesh=(), seconds=0.0, count=2, devices=4):
    script = pathlib.Path(__file__).with_name("one_process.py")
    return together.start(script, kind, workdir, steps, seconds, *mesh, count=count, devices=devices)


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


def assert_all_say_lost(processes, lost, within):
    began = time.monotonic()
    for index, process in enumerate(processes):
        _, err = process.communicate(timeout=120)
        if index == lost:
            continue
        assert time.monotonic() - began < within
        assert process.returncode == 1, err
        last = err.splitlines()[-1]
        assert f"jaxdiff: process {lost} of {len(processes)} is lost, so process {index} ends." in last
        assert "from the last checkpoint" in last
        assert lost == 0 or "stack trace" not in err  # JAX's own thread prints one where the first process is gone


def batches_by_count(workdir):
    """The global batches that were drawn, {processes: {number: examples}}, from what each process noted."""
    shares = {}
    for path in workdir.glob("ids*.jsonl"):
        for number, index, count, ids in map(json.loads, path.read_text().splitlines()):
            shares.setdefault(count, {}).setdefault(number, {})[index] = ids
    whole = lambda count, parts: [i for index in range(count) for i in parts.get(index, [None])]
    return {count: {n: whole(count, parts) for n, parts in of.items()} for count, of in shares.items()}


@pytest.mark.slow
def test_a_lost_process_of_four_ends_the_others_and_two_go_on_with_the_same_batches(tmp_path):
    processes = start("pictures", tmp_path / "run", 400, (), 0.1, count=4, devices=1)
    wait_for_step(processes, tmp_path / "run", 5)
    processes[2].kill()
    assert_all_say_lost(processes, 2, within=60)
    stopped = steps(tmp_path / "run" / "checkpoints")[-1]
    end = stopped + 4
    assert finish(start("pictures", tmp_path / "run", end, count=2, devices=1)) == [end, end]

    whole = data.batches(Pictures(), DataConfig(workers=0), batch_size=BATCH, seed=3)
    expected = {number: next(whole)["index"].tolist() for number in range(end)}
    seen = batches_by_count(tmp_path / "run")
    assert {number: seen[4][number] for number in range(stopped)} == {n: expected[n] for n in range(stopped)}
    assert seen[2] == {n: expected[n] for n in range(stopped, end)}  # none left out, none twice
    alone = Logged(0, 1, 0.0, tmp_path / "ids")
    assert_close(restore(tmp_path / "run", MATRIX), one_device(tmp_path / "one", alone, end, MATRIX))


@pytest.mark.slow
def test_where_the_first_process_is_lost_the_other_says_so(tmp_path):
    processes = start("pictures", tmp_path, 400, (), 0.1)
    wait_for_step(processes, tmp_path, 2)
    processes[0].kill()
    assert_all_say_lost(processes, 0, within=60)
