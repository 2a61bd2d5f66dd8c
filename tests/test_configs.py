"""Every config runs small: trained, resumed bit for bit, and sampled."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdiff import experiment
from jaxdiff.cli.main import main

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def picture(task, folder):
    return ["--prompt", task["preview"]["prompts"][0], "--steps", "2", "--num", "1"]


def first_stage(task, folder):
    Image.new("RGB", (20, 16), "red").save(folder / "red.png")
    return ["--init", str(folder / "red.png")]


WORDS = {"picture": picture, "first_stage": first_stage}
"""The words of `jaxdiff sample` that each kind of task takes."""


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs_small_resumes_and_is_sampled(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)

    def train(workdir, *more):
        main(["train", str(path), "--small", "--workdir", str(tmp_path / workdir), "--train.preview_every", "0", *more])

    # a constant learning rate, for that of a cosine at step 3 depends on where it ends
    constant = ("--optimizer.decay", "constant")
    train("parts", "--train.steps", "3", *constant)
    train("parts", "--train.steps", "6", *constant)
    train("whole", "--train.steps", "6", *constant)
    parts, whole = (experiment.open_run(tmp_path / name).weights for name in ("parts", "whole"))
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    told = json.loads((tmp_path / "parts" / "config.json").read_text())
    assert told["name"] == f"{path.stem}-small"
    out = tmp_path / "sample.png"
    words = WORDS[told["task"]["kind"]](told["task"], tmp_path)
    main(["sample", "--model", str(tmp_path / "parts"), "--out", str(out), *words])
    assert Image.open(out).size[0] >= 16
