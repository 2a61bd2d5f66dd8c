"""Accidents and odd values in the files of a run: named in one line, or the run is as it was."""

import json
import math
import random

import jax
import numpy as np
import pytest
from bad_input import VALUES, changed, damaged, paths, told

from jaxdiff import experiment
from jaxdiff.cli.sample_inputs import read_noise
from jaxdiff.data.source import DataConfig
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import log
from jaxdiff.typing import Params

CONFIG = Experiment(
    name="small",
    data=DataConfig(size=8),
    task=picture.Config(
        net=UNetConfig(
            channels=(8,), layers=1, attention=("cross",), mid_attention="none", heads=(2,), depth=(1,), groups=4,
            pooled=True,
        ),
        text=TextConfig(vocabulary=300, length=8, width=8, layers=1, heads=2),
        vocabulary=300,
        preview=PreviewConfig(prompts=("red",), steps=4),
    ),
)  # fmt: skip
JSON = json.loads(experiment.to_json(CONFIG))
PLACES = list(paths(JSON))
OF_THE_NET = [place for place in PLACES if place[:2] in (("task", "net"), ("task", "text"))]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(JSON))
    BytePair.learn(["red circle", "blue square"], 300).write(tmp_path / "vocabulary.json")
    return tmp_path


def test_odd_values_at_every_place_of_config_json(run):
    """What is read says the value that the file has."""
    for place in PLACES:
        for value in VALUES:
            (run / "config.json").write_text(json.dumps(made := changed(JSON, place, value)))
            read: list[Experiment] = []
            if told(lambda read=read: read.append(experiment.read(run)), run):
                continue
            if place[-1:] == ("remat",) and value is True:
                continue  # as runs of before it had names
            back = json.loads(experiment.to_json(read[0]))
            assert {**JSON, **made} == back or value == {}, (place, value)


def test_accidents_of_config_json(run):
    whole, rng = (run / "config.json").read_bytes(), random.Random(0)
    for _ in range(100):
        (run / "config.json").write_bytes(damaged(whole, rng))
        told(lambda: experiment.read(run), run)


@pytest.mark.parametrize("seed", range(2))
def test_odd_numbers_of_networks_are_told_when_a_run_is_opened(run, monkeypatch, seed):
    """As far as the shapes of the weights: those of the checkpoint are compared with them."""
    monkeypatch.setattr(experiment.training, "load_params", shaped)
    rng = random.Random(seed)
    for _ in range(10):
        place, value = rng.choice(OF_THE_NET), rng.choice([0, -1, 3, 7, 2**31, 10**30, 0.5, -1.0, "x", [8], [8, 0]])
        (run / "config.json").write_text(json.dumps(changed(JSON, place, value)))
        told(lambda: experiment.open_run(run), run)


def shaped(path: str, like: Params) -> Params:
    """Stands for reading the weights."""
    assert all(math.prod(leaf.shape) for leaf in jax.tree.leaves(like))
    return like


@pytest.mark.parametrize("line", ["{", "[]", "3", "{}", '{"step": "x"}', "\0\0", '{"step": null}', "[" * 10**5])
def test_a_damaged_line_of_metrics_is_named_and_nothing_is_lost(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text := f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    assert "line 2 is damaged" in told(lambda: log.truncate(path, 3), path)
    assert path.read_text() == text


def test_accidents_of_noise(tmp_path):
    path, rng = tmp_path / "noise.npy", random.Random(1)
    np.save(path, x := np.ones((2, 8, 8, 3), np.float32))
    whole, refused = path.read_bytes(), 0
    for _ in range(100):
        path.write_bytes(damaged(whole, rng))
        read: list[np.ndarray] = []
        refused += bool(told(lambda read=read: read.append(read_noise(path)), path))
        assert not read or isinstance(read[0], np.ndarray)
    assert refused > 50
    np.savez(path.with_suffix(".npz"), x)
    whole, rng = path.with_suffix(".npz").read_bytes(), random.Random(2)
    for data in (whole, *(damaged(whole, rng) for _ in range(30))):
        path.with_suffix(".npz").write_bytes(data)
        assert told(lambda: read_noise(path.with_suffix(".npz")), "noise.npz")
