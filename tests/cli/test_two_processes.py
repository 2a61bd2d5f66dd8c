"""`jaxdiff train` in two processes is one run."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from test_train_and_sample import CONFIG

from jaxdiff.training import load_params, manifest


def train(place, *args):
    """Returns what each process printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    argv = ["train", str(place / "tiny.py"), "--workdir", str(place / "run"), *args]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "jaxdiff.cli.main", *argv, "--distributed", f"{address},2,{index}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in "01"
    ]
    try:
        outputs = [process.communicate(timeout=1200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], [err[-3000:] for _, err in outputs]
    return [out for out, _ in outputs]


@pytest.mark.heavy
def test_two_processes_of_the_command_line_train_one_run(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
        (tmp_path / "pictures" / f"{i}.txt").write_text("red" if i % 2 else "blue")
    (tmp_path / "tiny.py").write_text(CONFIG.format(folder=str(tmp_path / "pictures")))
    out = train(tmp_path, "--train.steps", "4", "--checkpoint.every", "2")
    assert f"step 4 of 4: checkpoint in {tmp_path / 'run' / 'checkpoints' / '4'}" in out[0]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(manifest.check(tmp_path / "run" / "checkpoints" / step) for step in "24")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_params(tmp_path / "run")))
