"""Data of noise, that need no file."""

import numpy as np

from jaxdiff.data import batches, open_source
from jaxdiff.data.config import DataConfig


def test_a_picture_follows_from_its_number_alone():
    config = DataConfig(name="synthetic", size=8, split="all", workers=0)
    source, again = open_source(config), open_source(config)
    for index in (0, 7, len(source) - 1):
        one = source[index]
        assert one["caption"] == source.labels[one["label"]] == source.captions()[index]
        np.testing.assert_array_equal(one["image"], again[index]["image"])
    assert (source[0]["image"] != source[1]["image"]).any()
    other = open_source(DataConfig(name="synthetic", size=8, split="test"))
    assert (source[0]["image"] != other[0]["image"]).any()
    batch = next(batches(source, config, batch_size=4, seed=0))
    assert batch["image"].shape == (4, 8, 8, 3)
