"""What a config must be, and that its JSON says the same."""

import copy
import dataclasses
import json
import math
import re

import jax
import numpy as np
import pytest

from jaxdiff import experiment
from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.tasks import picture
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig

GOOD = Experiment(
    "good",
    picture.Config(
        net=UNetConfig(pooled=True, channels=(32, 64), attention=("none", "cross"), heads=(1, 2), depth=(1, 1)),
        preview=PreviewConfig(prompts=("a", "b")),
    ),
    held_out="test",
    mesh=MeshSpec(data=2, fsdp=2, tensor=2),
    data=DataConfig(name="openmoji", size=32),
    checkpoint=CheckpointConfig(best="ema_loss"),
)


def changed(path, value, config=GOOD):
    """The config with the field at 'a.b' replaced, by whatever: tests check the types of what is constructed."""
    head, _, rest = path.partition(".")
    made = copy.copy(config)
    object.__setattr__(made, head, changed(rest, value, getattr(config, head)) if rest else value)
    return made


def test_a_good_config_passes_and_survives_json():
    experiment.check(GOOD)
    again = experiment.from_json(experiment.to_json(GOOD))
    assert again == GOOD
    assert isinstance(again.task.net.channels, tuple)
    assert isinstance(again.mesh, MeshSpec)


OLD = {
    "name": "old",
    "seed": 3,
    "vocabulary": 300,
    "data": {"name": "openmoji", "size": 16},
    "process": {"schedule": "linear", "prediction": "v", "weight": "snr", "condition": "text", "drop": 0.2},
    "unet": {"channels": [8, 16], "attention": ["none", "cross"], "heads": [1, 2], "depth": [1, 1], "pooled": True},
    "text": {"width": 8, "heads": 2},
    "preview": {"prompts": ["red"], "sampler": "ddpm", "steps": 5, "guidance": 2.0, "seed": 7},
}


def test_a_config_from_before_there_were_tasks_is_one_of_pictures():
    read = experiment.from_json(json.dumps(OLD))
    task = picture.Config(
        process=ProcessConfig(schedule="linear", prediction="v", weight="snr"),
        net=UNetConfig(channels=(8, 16), attention=("none", "cross"), heads=(1, 2), depth=(1, 1), pooled=True),
        text=TextConfig(width=8, heads=2),
        condition="text",
        drop=0.2,
        vocabulary=300,
        preview=PreviewConfig(("red",), "ddpm", 5, 2.0),
    )
    expected = Experiment("old", task, seed=3, data=DataConfig("openmoji", size=16))
    assert read == dataclasses.replace(expected, preview=experiment.PreviewConfig(seed=7))
    assert experiment.from_json('{"name": "x"}') == Experiment("x", picture.Config())
    assert experiment.from_json(experiment.to_json(read)) == read


@pytest.mark.parametrize(("before", "name"), [(True, "blocks"), (False, "none")])
def test_a_config_from_before_recomputing_had_names(before, name):
    told = {"name": "x", "task": {"kind": "picture", "net": {"kind": "unet", "remat": before}}}
    assert experiment.from_json(json.dumps(told)).task.net.remat == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "x", "sede": 1}', "unknown config field sede: did you mean seed?"),
        ('{"name": "x", "unet": {"chanels": [8]}}', "task.net.chanels: did you mean channels?"),
        ('{"name": "x", "strategy": "mash"}', "strategy is 'mash': expected one of mesh, pmap"),
        ('{"name": "x", "text": null}', "task.text is None: expected an object with the fields of TextConfig"),
        ('{"name": "x", "task": {"kind": "pixture"}}', "no kind 'pixture' in jaxdiff.tasks: expected one of picture"),
        ('{"name": "x", "train": {"steps": 2.5}}', "train.steps is 2.5: expected a whole number"),
        ('["x"]', "expected an object"),
        ("{", "not JSON"),
    ],
)
def test_what_json_may_not_say_is_refused_with_its_path(text, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        experiment.from_json(text)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("ema", 1.5, "1.5"),
        ("task.preview.sampler", "dimm", "unknown sampler 'dimm': expected one of ddim"),
        ("task.preview.steps", 1001, "1000"),
        ("train.steps", 0, "train.steps is 0: expected 1 or more"),
        ("train.preview_every", -1, "train.preview_every is -1"),
        ("train.batch_size", 6, "train.batch_size is 6, which does not divide by 4 devices x train.accumulate 1"),
        ("train.accumulate", 3, "choose a multiple of 12"),
        ("mesh", MeshSpec(data=3), "8: choose sizes"),
        ("strategy", "pmap", "by 8 devices"),
        ("held_out", "", "held_out"),
        ("task.net.heads", (1,), "heads is .* one entry for each of the 2 levels"),
        ("task.net.attention", ("none",), "attention"),
        ("task.net.attention", ("none", "crss"), "expected none, self, cross, joint or context"),
        ("task.net.groups", 5, "which does not divide by groups 5"),
        ("task.net.heads", (1, 3), "or by 3 heads"),
        ("task.net.patch", 64, "32x32 does not cut into patches of 64"),
        ("task.net", dataclasses.replace(GOOD.task.net, pad_after=True, patch=32), "halve 1 times"),
        ("task.net.labels", 4, "a class condition needs the number"),
        ("task.net.pooled", False, "task.net.pooled is False: text, and only text, needs it"),
        ("task.vocabulary", 5000, "task.text.vocabulary is 1024, below task.vocabulary 5000"),
        ("task.vocabulary", 3, "vocabulary size 3"),
        ("task.process.variance", "learned", "variance = learned does not go with times = uniform"),
        ("task.process", ProcessConfig(schedule="linear", zero_terminal=True), "eps prediction divides by alpha"),
        ("task.process", ProcessConfig(objective="progressive", prediction="v"), "give the run to learn from"),
        ("task.net.out_channels", 6, "task.net.out_channels is 6: expected 3 for 3 channels"),
    ],
)
def test_what_cannot_be_is_refused_by_the_names_of_its_fields(path, value, words):
    base = changed("train", TrainConfig(batch_size=20)) if path == "strategy" else GOOD
    with pytest.raises(ValueError, match=words):
        experiment.check(changed(path, value, base))


NUMBERS = {
    **dict.fromkeys(("optimizer.lr", "optimizer.eps"), (0.0, -1.0)),
    **dict.fromkeys(("optimizer.end_lr", "optimizer.weight_decay", "optimizer.clip"), (-1.0,)),
    **dict.fromkeys(("optimizer.b1", "optimizer.b2", "ema", "task.net.dropout"), (-0.1, 1.0)),
    **dict.fromkeys(("task.drop",), (-0.1, 1.1)),
    **dict.fromkeys(("task.net.eps", "task.net.rescale"), (0.0, -1.0)),
    **dict.fromkeys(("task.preview.guidance",), ()),
}


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", None, True])
def test_every_number_has_a_range_that_nan_and_infinity_are_outside_of(path, value):
    with pytest.raises(ValueError, match=path.rpartition(".")[2]):
        experiment.check(changed(path, value))
    for number in NUMBERS[path]:
        with pytest.raises(ValueError, match=path.rpartition(".")[2]):
            experiment.check(changed(path, number))


COUNTS = (
    *("train.steps", "train.batch_size", "train.accumulate", "train.log_every", "checkpoint.keep", "held_out_batches"),
    *("task.net.layers", "task.net.out_channels", "task.net.patch", "task.net.groups", "task.text.heads"),
    *("task.text.width", "task.text.length", "task.text.vocabulary", "task.vocabulary", "task.preview.steps"),
    *("data.size", "optimizer.every", "seed", "preview.seed", "optimizer.warmup"),
)


@pytest.mark.parametrize("path", COUNTS)
@pytest.mark.parametrize("value", [-1, 2.5, "3", None, 2**70])
def test_every_count_is_whole_and_has_a_least(path, value):
    with pytest.raises(ValueError, match=path.rpartition(".")[2]):
        # where many are too many, their number is not what is refused
        experiment.check(changed(path, -1 if value == 2**70 and "seed" not in path else value))


@pytest.mark.parametrize("path", ["task.net.channels", "task.net.heads", "task.net.depth"])
@pytest.mark.parametrize("value", [(0, 0), (-8, -8), (8, 2.5), (), 8, "88", None])
def test_every_level_has_its_numbers(path, value):
    with pytest.raises(ValueError, match=path.rpartition(".")[2]):
        experiment.check(changed(path, value))


@pytest.mark.parametrize("path", ["task", "task.process", "task.net", "task.text", "task.preview", "data", "mesh"])
@pytest.mark.parametrize("value", [None, 3, "picture", {}])
def test_every_part_is_of_its_class(path, value):
    with pytest.raises(ValueError, match=path.rpartition(".")[2]):
        experiment.check(changed(path, value))


def test_a_value_that_json_has_no_word_for_is_refused():
    with pytest.raises(ValueError, match=r"seed is array\(3\), a ndarray"):
        experiment.check(changed("seed", np.array(3)))


def test_other_channels_than_a_picture_has_are_refused():
    with pytest.raises(ValueError, match=r"task.net.out_channels is 4: expected 3"):
        experiment.check(changed("task.net.out_channels", 4))


def test_the_number_of_devices_is_that_of_all_processes(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 96)
    with pytest.raises(ValueError, match="by 96 devices"):
        experiment.check(changed("mesh", MeshSpec()))


def test_a_workdir_that_is_no_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"it has no config.json"):
        experiment.read(tmp_path)
    (tmp_path / "config.json").write_text(experiment.to_json(GOOD))
    assert experiment.read(tmp_path) == GOOD
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: this is not JSON"):
        experiment.read(tmp_path)
