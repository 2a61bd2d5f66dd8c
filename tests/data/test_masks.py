"""Masks that are drawn for inpainting."""

import numpy as np
import pytest

from jaxdiff.data import masks


@pytest.mark.parametrize("whole", [0.0, 0.4, 1.0])
def test_masks_fill_a_part_or_all(whole):
    rng = np.random.default_rng(0)
    drawn = [masks.draw(rng, 24, 40, whole) for _ in range(300)]
    assert {mask.shape for mask in drawn} == {(24, 40, 1)}
    assert {*np.unique(drawn)} == ({0, 1} if whole < 1 else {1})
    shares = np.array([mask.mean() for mask in drawn])
    assert abs((shares == 1).mean() - whole) < 0.1
    assert (shares > 0).mean() > 0.97  # one at a corner may miss every pixel
    if whole == 0:
        assert 0.15 < shares.mean() < 0.6
