"""`jaxdiff train` in two processes is one run."""

import json
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from test_train_and_sample import CONFIG
from together import finish, free_port, launch

from jaxdiff.training import load_params, manifest


@pytest.mark.heavy
def test_two_processes_of_the_command_line_train_one_run(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
        (tmp_path / "pictures" / f"{i}.txt").write_text("red" if i % 2 else "blue")
    (tmp_path / "tiny.py").write_text(CONFIG.format(folder=str(tmp_path / "pictures")))
    run = tmp_path / "run"

    def train(steps):
        given = ("train", tmp_path / "tiny.py", "--workdir", run, "--checkpoint.every", 2, "--train.steps", steps)
        program, at = [sys.executable, "-m", "jaxdiff.cli.main", *given], f"127.0.0.1:{free_port()}"
        return finish(launch([[*program, "--distributed", f"{at},2,{index}"] for index in range(2)]))

    out = train(4)
    assert f"step 4 of 4: checkpoint in {run / 'checkpoints' / '4'}" in out[0]
    out = train(6)  # resumed
    assert f"step 6 of 6: checkpoint in {run / 'checkpoints' / '6'}" in out[0]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(manifest.check(run / "checkpoints" / step) for step in "246")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_params(run)))
