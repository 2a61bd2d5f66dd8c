"""Runs of several stages on the command line: found, made in one call, named in the picture; and what is missing."""

import shutil

import numpy as np
import pytest
from PIL import Image
from runs import write

from jaxdiff.cli import out, sample
from jaxdiff.tasks import stages

NET = "UNetConfig(channels=(8,), layers=1, attention=('none',), mid_attention='none', heads=(1,), depth=(1,), groups=4"
FILE = """
import pathlib
from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture, super_resolution

def config():
    return Experiment(name="small", data=DataConfig(name="synthetic", size={size}), task={task})
"""
BASE = f"picture.Config(net={NET}), condition='none')"
LARGER = (
    f"super_resolution.Config(net={NET}, augment=True), condition='none', low=8, levels=300, before="
    "pathlib.Path({before!r}))"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    (path / "one.py").write_text(FILE.format(size=8, task=BASE))
    write(path / "one.py", path / "one")
    (path / "two.py").write_text(FILE.format(size=16, task=LARGER.format(before=str(path / "one"))))
    write(path / "two.py", path / "two")
    return path


def sampled(folder, *words):
    sample.main(["--out", str(folder / "made.png"), "--num", "1", "--steps", "2", *words])
    return out.read(folder / "made.png"), Image.open(folder / "made.png")


def test_a_later_stage_brings_those_before_it_and_the_picture_names_both(folder):
    told, found = sampled(folder, "--model", str(folder / "two"), "--noise-level", "20")
    assert [one["run"] for one in told["stages"]] == [
        str(folder / name / "checkpoints" / "0") for name in ("one", "two")
    ]
    assert [one["size"] for one in told["stages"]] == [[8, 8], [16, 16]]
    assert [one.get("noise_level") for one in told["stages"]] == [None, 20]
    assert told["stages"][0]["steps"] == 2
    given = ["--model", str(folder / "one"), "--then", str(folder / "two"), "--noise-level", "20"]
    again, same = sampled(folder, *given)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(same))
    assert again["stages"] == told["stages"]


@pytest.mark.heavy
def test_a_picture_that_is_given_is_enlarged_by_one_stage(folder):
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    told, _ = sampled(folder, "--model", str(folder / "two"), "--image", str(folder / "red.png"))
    assert "stages" not in told


def test_what_is_missing_or_does_not_fit_is_named_before_anything_is_read(folder, tmp_path):
    other = tmp_path / "two"
    shutil.copytree(folder / "two", other)
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace(str(folder / "one"), str(tmp_path / "gone")))
    with pytest.raises(
        FileNotFoundError, match=r"two follows .*gone, and that is no run: train it, or give the stages"
    ):
        sampled(tmp_path, "--model", str(other))
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "config.json").write_text((folder / "one" / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="gone, and that has no checkpoint yet"):
        sampled(tmp_path, "--model", str(other))
    (other / "config.json").write_text(config.replace('"size": 16', '"size": 24').replace('"low": 8', '"low": 12'))
    with pytest.raises(ValueError, match="stage 2 enlarges pictures of 12x12, and the one before it makes them of 8x8"):
        sampled(tmp_path, "--model", str(other))
    with pytest.raises(ValueError, match="noise_level is 300: this model knows 0 to 299"):
        sampled(tmp_path, "--model", str(folder / "two"), "--noise-level", "300")
    (other / "config.json").write_text(config.replace(str(folder / "one"), str(other)))
    with pytest.raises(ValueError, match="which follows it: expected a first stage"):
        stages.chain(other)
