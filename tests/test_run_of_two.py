"""A run of two processes: both enter the programs of training, held-out loss and previews, and the first one writes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import pytest
from PIL import Image

from jaxdiff import experiment


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [2])
def test_two_processes_train_and_draw_previews(tmp_path, fsdp):
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(tmp_path / "pictures" / f"{i}.png")
        (tmp_path / "pictures" / f"{i}.txt").write_text("red" if i % 2 else "blue")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    script = str(pathlib.Path(__file__).with_name("run_of_two.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(port), str(index), str(tmp_path), str(fsdp)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1][-3000:] + outputs[1][1][-3000:]
    assert (tmp_path / "said1.txt").read_text() == "done 2"  # the second process says nothing else
    folder = tmp_path / "run"
    assert sorted(path.name for path in (folder / "samples" / "prompts").iterdir()) == ["000001.png", "000002.png"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all("ema_loss" in line for line in lines)
    assert experiment.open_run(folder).assets.vocabulary is not None
    assert not list(folder.glob(".*.part"))
