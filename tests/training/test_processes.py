"""Two processes on loopback, with four devices each, train what one device trains."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from toy_task import Data, program

from jaxdiff.parallel import MeshSpec
from jaxdiff.training import OptimizerConfig, TrainConfig, fit
from jaxdiff.training.checkpoint import Checkpoints, steps

SGD = OptimizerConfig(name="sgd", lr=1e-2, decay="constant", clip=0.0)


def start(workdir, steps, mesh=(), seconds=0.0):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    script = str(pathlib.Path(__file__).with_name("two_processes.py"))
    commands = (
        [sys.executable, script, *map(str, (port, index, workdir, steps, seconds, *mesh))] for index in range(2)
    )
    return [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for command in commands
    ]


def finish(processes):
    """The step each process stopped at."""
    try:
        outputs = [process.communicate(timeout=180) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1][-2000:] + outputs[1][1][-2000:]
    return [int(out.split()[-1]) for out, _ in outputs]


def restore(workdir, run):
    with Checkpoints(workdir) as checkpoints:
        state, _ = checkpoints.restore(jax.eval_shape(run.init, jax.random.key(0)))
    return state


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    run = program(MeshSpec(), SGD, devices=jax.devices()[:1])
    train = TrainConfig(steps=5, batch_size=16)
    state = fit(run, Data(16), jax.random.key(0), tmp_path_factory.mktemp("one"), train)
    return jax.tree.map(np.asarray, state)


def assert_close(state, other):
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-6 * np.linalg.norm(theirs)


@pytest.mark.slow
def test_two_processes_train_the_parameters_of_one_device(tmp_path, one_device):
    """Three steps with the state split over both processes, two more on another mesh, read here on one device."""
    assert finish(start(tmp_path, 3, (1, -1, 1))) == [3, 3]
    assert finish(start(tmp_path, 5, (-1, 2, 2))) == [5, 5]
    assert_close(restore(tmp_path, program(MeshSpec(), SGD, devices=jax.devices()[:1])), one_device)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]  # one process writes


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_at_one_step(tmp_path):
    processes = start(tmp_path, 400, (), 0.05)
    until = time.monotonic() + 120
    while not (tmp_path / "metrics.jsonl").exists() or len((tmp_path / "metrics.jsonl").read_text()) < 300:
        assert time.monotonic() < until
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    first, second = finish(processes)
    assert first == second < 400
    assert steps(tmp_path / "checkpoints") == [first]
