import dataclasses

import numpy as np
import pytest

from jaxdiff.data import DataConfig, batches, open_source
from jaxdiff.data.source import Kept, Part


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "openmojy"}, "data.name is 'openmojy'.*nearest names: openmoji"),
        ({"name": "no/such/folder"}, "expected a TFDS name or a folder of pictures"),
        ({"subset": "quick"}, "data.subset is 'quick': expected one of all, plain, quickstart"),
        ({"size": 0}, "data.size is 0: expected at least 1"),
        ({"size": 256}, "data.size is 256: openmoji is drawn at up to 128"),
        ({"workers": -1}, "data.workers is -1"),
    ],
)
def test_bad_config_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_source(DataConfig(dir=str(tmp_path), **options))
    assert not list(tmp_path.iterdir()), "nothing was prepared"


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
