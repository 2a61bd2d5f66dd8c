"""What a config must be, and that its JSON says the same."""

import dataclasses

import jax
import pytest

from jaxdiff import experiment
from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment, PreviewConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.training import CheckpointConfig, TrainConfig

GOOD = Experiment(
    "good",
    held_out="test",
    mesh=MeshSpec(data=2, fsdp=2, tensor=2),
    data=DataConfig(name="openmoji", size=32),
    unet=UNetConfig(pooled=True, channels=(32, 64), attention=("none", "cross"), heads=(1, 2), depth=(1, 1)),
    preview=PreviewConfig(prompts=("a", "b")),
    checkpoint=CheckpointConfig(best="ema_loss"),
)


def changed(path, value, config=GOOD):
    """The config with the field at 'a.b' replaced."""
    head, _, rest = path.partition(".")
    return dataclasses.replace(config, **{head: changed(rest, value, getattr(config, head)) if rest else value})


def test_a_good_config_passes_and_survives_json():
    experiment.check(GOOD)
    again = experiment.from_json(experiment.to_json(GOOD))
    assert again == GOOD
    assert isinstance(again.unet.channels, tuple)
    assert isinstance(again.mesh, MeshSpec)


def test_what_the_json_leaves_out_has_its_default():
    assert experiment.from_json('{"name": "x"}') == Experiment("x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "x", "sede": 1}', "unknown config field sede: did you mean seed?"),
        ('{"name": "x", "unet": {"chanels": [8]}}', "unet.chanels: did you mean channels?"),
        ('{"name": "x", "strategy": "mash"}', "strategy is 'mash': expected one of mesh, pmap"),
    ],
)
def test_an_unknown_field_or_word_is_refused_with_its_path(text, words):
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        experiment.from_json(text)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("ema", 1.5, "1.5"),
        ("preview.sampler", "dimm", "unknown sampler 'dimm': expected one of ddim"),
        ("preview.steps", 1001, "1000"),
        ("train.steps", 0, "train.steps is 0: expected 1 or more"),
        ("train.preview_every", -1, "train.preview_every is -1"),
        ("train.batch_size", 6, "train.batch_size is 6, which does not divide by 4 devices x train.accumulate 1"),
        ("train.accumulate", 3, "choose a multiple of 12"),
        ("mesh", MeshSpec(data=3), "8: choose sizes"),
        ("strategy", "pmap", "by 8 devices"),
        ("held_out", "", "held_out"),
        ("unet.heads", (1,), "unet.heads is .* one entry for each of the 2 levels"),
        ("unet.attention", ("none",), "unet.attention"),
        ("unet.groups", 5, "which does not divide by unet.groups 5"),
        ("unet.heads", (1, 3), "or by 3 heads"),
        ("unet.patch", 64, "expected a multiple of 64, since the network cuts patches of 64"),
        ("unet", dataclasses.replace(GOOD.unet, pad_after=True, patch=32), "patches of 32 and halves 1 times"),
        ("unet.labels", 4, "a class condition needs the number"),
        ("unet.pooled", False, "unet.pooled is False: text, and only text, needs it"),
        ("vocabulary", 5000, "text.vocabulary is 1024, below vocabulary 5000"),
    ],
)
def test_what_cannot_be_is_refused_by_the_names_of_its_fields(path, value, words):
    base = changed("train", TrainConfig(batch_size=20)) if path == "strategy" else GOOD
    with pytest.raises(ValueError, match=words):
        experiment.check(changed(path, value, base))


def test_the_number_of_devices_is_that_of_all_processes(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 96)
    with pytest.raises(ValueError, match="by 96 devices"):
        experiment.check(changed("mesh", MeshSpec()))


def test_a_workdir_that_is_no_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"it has no config.json"):
        experiment.read(tmp_path)
    (tmp_path / "config.json").write_text(experiment.to_json(GOOD))
    assert experiment.read(tmp_path) == GOOD
