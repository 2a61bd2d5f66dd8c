"""Shapes of known factors: each picture shows its own, and all combinations are there."""

import numpy as np
import pytest

from jaxdiff.data import open_source
from jaxdiff.data.config import DataConfig
from jaxdiff.data.shapes import FACTORS, ShapesSource


def test_pictures_show_their_factors_and_splits_are_apart():
    parts = {split: ShapesSource(DataConfig(name="shapes", size=16, split=split)) for split in ("train", "test", "all")}
    whole = parts["all"].factors
    assert len(whole) == np.prod([*FACTORS.values()]) == len(np.unique(whole, axis=0))
    assert len(parts["train"]) + len(parts["test"]) == len(whole)
    assert not {map(tuple, parts["train"].factors)} & {map(tuple, parts["test"].factors)}
    y, x = np.indices((16, 16))

    def seen(index):
        image = parts["all"][index]["image"][..., 0].astype(float)
        total = image.sum()
        return (y * image).sum() / total, (x * image).sum() / total, image.max(), (image > 0).sum(), total

    base = 8 * 8 * 4 * 4 + 3 * 8 * 16 + 3 * 16 + 1 * 4  # disc, row 3, column 3, size 1, shade 0
    row, column, bright, area, total = seen(base)
    assert seen(base + 8 * 16)[0] - row == pytest.approx(16 / 14, abs=0.1)  # of four points a pixel
    assert seen(base + 16)[1] - column == pytest.approx(16 / 14, abs=0.1)
    assert seen(base + 1)[2] == bright - 45
    assert seen(base + 4)[3] > area
    assert total / (255 * 256) == pytest.approx(np.pi * 0.12**2, rel=0.05)  # a disc of radius 0.12
    assert parts["all"][base]["caption"] == "disc"


def test_they_are_found_by_name_and_other_splits_are_refused():
    assert open_source(DataConfig(name="shapes", size=8, split="test")).labels == ("square", "disc")
    with pytest.raises(ValueError, match="expected train, test or all"):
        open_source(DataConfig(name="shapes", split="valid"))
