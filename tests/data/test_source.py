import dataclasses

import numpy as np
import pytest

from jaxdiff.data import DataConfig, batches, open_source
from jaxdiff.data.source import Kept, Part, check, kind_of


def unchecked(**fields):
    """A config as a user's file may make it: tests check types where it is made, and users' programs do not."""
    config = DataConfig()
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    return config


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "openmojy"}, "data.name is 'openmojy'.*nearest names: openmoji"),
        ({"name": "no/such/folder"}, "expected a TFDS name or a folder of pictures"),
        ({"name": "./no/such/folder"}, "there is no such folder"),
        ({"name": "~nobody-of-this-name/x"}, "there is no such folder"),
        ({"name": "%s {}"}, "expected a TFDS name or a folder"),
        ({"name": "tfds:"}, "data.name is 'tfds:': expected a TFDS name"),
        ({"name": "openmoji/"}, "cannot open 'openmoji/'"),
        ({"subset": "quick"}, "data.subset is 'quick': expected one of all, plain, quickstart"),
        ({"subset": "plain", "name": "cifar10"}, "data.subset is 'plain', a part of openmoji that 'cifar10' does not"),
        ({"subset": "quickstart", "name": "./openmoji"}, "a part of openmoji that './openmoji' does not have"),
        ({"size": 256}, "data.size is 256: openmoji is drawn at up to 128"),
        *(
            ({field: value}, f"data.{field} is .*: expected a whole number from {least} to {most}")
            for field, least, most in (("size", 1, 4096), ("workers", 0, 1024))
            for value in (least - 1, most + 1, 10**30, 2.5, 8.0, NAN, INF, -INF, "8", None, True, [8])
        ),
        *(
            ({field: value}, f"data.{field} is .*: expected text of 1 to 1000 characters")
            for field in ("name", "split", "subset", "dir")
            for value in ("", 3, NAN, ["a"], "a\0b", "x" * 5000)
        ),
        ({"name": None}, "data.name is None"),
        *(
            ({field: value}, f"data.{field} is .*: expected True or False")
            for field in ("flip", "articles")
            for value in (1, 0.5, "no", None, NAN)
        ),
    ],
)
def test_bad_config_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_source(unchecked(**{"dir": str(tmp_path), **options}))
    assert not list(tmp_path.iterdir()), "nothing was prepared"


def test_every_field_of_the_config_is_checked():
    """A field that is added and not checked fails here."""
    for field in dataclasses.fields(DataConfig):
        with pytest.raises(ValueError, match=f"data.{field.name} is"):
            check(unchecked(**{field.name: object()}))


def test_a_name_of_a_data_set_and_of_a_folder_is_an_error_that_says_how_to_name_each(tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    assert kind_of("openmoji") == "tfds"
    (tmp_path / "openmoji").mkdir()
    with pytest.raises(
        ValueError, match=r"'openmoji', a TFDS data set and a folder here: write './openmoji' .* 'tfds:op"
    ):
        open_source(DataConfig(dir=data_dir))
    assert kind_of("./openmoji") == kind_of(str(tmp_path / "openmoji")) == "folder"
    assert kind_of("tfds:openmoji") == "tfds"
    source = open_source(DataConfig(name="tfds:openmoji", split="test", subset="quickstart", dir=data_dir))
    assert "red heart" in open_source(DataConfig(name="tfds:openmoji", split="all", dir=data_dir)).captions()
    assert len(source) > 10
    (tmp_path / "hearts").mkdir()
    assert kind_of("hearts") == "folder"
    with pytest.raises(
        ValueError, match=r"'harts': expected a TFDS name or a folder of pictures; nearest names: .*hearts"
    ):
        kind_of("harts")
    for versioned in ("openmoji/64", "openmoji:17.0.0", "imagenet_resized/32x32:0.1.0"):
        assert kind_of(versioned) == "tfds"


@pytest.mark.parametrize("split", ["train[", "train[:x]", "[]", "train+", "1"])
def test_a_split_that_tfds_cannot_read_is_named(data_dir, split):
    with pytest.raises(ValueError, match=r"data\.split is .*: openmoji has train, test, all; ") as error:
        open_source(DataConfig(split=split, dir=data_dir))
    assert "\n" not in str(error.value)


def test_unknown_split_lists_those_there_are(data_dir):
    with pytest.raises(ValueError, match=r"data\.split is 'validation': openmoji has train, test, all"):
        open_source(DataConfig(split="validation", dir=data_dir))


def test_captions_are_those_of_the_examples(data_dir):
    source = open_source(DataConfig(split="test[:5%]", subset="plain", dir=data_dir))
    assert source.captions() == [source[i]["caption"] for i in range(len(source))]


def test_a_smaller_size_is_scaled_from_the_next_larger(data_dir):
    config = DataConfig(split="test", subset="quickstart", dir=data_dir)
    full, half = open_source(config), open_source(dataclasses.replace(config, size=16))
    assert half[0]["image"].shape == (16, 16, 3)
    means = np.stack([full[i]["image"].reshape(16, 2, 16, 2, 3).mean((1, 3)) for i in range(len(full))])
    for i in range(len(full)):  # the filter is sharper than a mean of 2 x 2, but no other picture is as near
        distances = abs(half[i]["image"] - means).mean((1, 2, 3))
        assert np.argmin(distances) == i
        assert distances[i] < 12


def test_part_renumbers(numbers):
    part = Part(numbers(10), [7, 2])
    assert len(part) == 2
    assert part.captions() == ["number 7", "number 2"]
    assert part[0]["caption"] == "number 7"


def test_kept_reads_each_example_once(numbers):
    source = numbers(5)
    kept = Kept(source)
    for _ in range(3):
        assert [int(kept[i]["image"][0, 1, 0]) for i in range(5)] == list(range(5))
    assert source.reads == 5
    assert np.array_equal(kept.captions(), source.captions())


def test_batches_of_real_pictures(data_dir):
    config = DataConfig(split="test", subset="quickstart", dir=data_dir)
    source = open_source(config)
    batch = next(batches(source, config, batch_size=8, seed=0))
    assert all(np.array_equal(batch["image"][row], source[i]["image"]) for row, i in enumerate(batch["index"].tolist()))
    assert [source.labels[label] for label in batch["label"]].count("component") == 0
