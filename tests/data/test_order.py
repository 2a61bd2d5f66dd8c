"""Which examples a batch holds where some may not share one."""

import collections
import itertools

import numpy as np
import pytest

from jaxdiff.data import buckets
from jaxdiff.data.order import Order

GROUPS = [7, 30, 2]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_a_batch_is_of_one_group_and_an_epoch_shows_each_of_a_group_once(batch_size):
    order, ends = Order(GROUPS, batch_size, seed=5), np.cumsum(GROUPS)
    seen = collections.defaultdict(list)
    batches = [order(number) for number in range(6 * sum(GROUPS) // batch_size)]
    for rows in batches:
        group = np.searchsorted(ends, rows, "right")
        assert len(rows) == batch_size
        assert len({*group}) == 1
        seen[group[0]].append(rows)
    for group, parts in seen.items():  # the batches of a group come in any order within an epoch, and each once
        rows, size = np.concatenate(parts), GROUPS[group]
        counts = np.bincount(rows - (ends[group] - size), minlength=size)
        assert counts.max() - counts.min() <= 2, "nothing is left out"
    shares = {group: sum(map(len, parts)) for group, parts in seen.items()}
    for group, size in enumerate(GROUPS):
        assert abs(shares.get(group, 0) - 6 * size) <= 2 * batch_size, "groups come as often as they are large"
    again = Order(GROUPS, batch_size, seed=5)
    for number in reversed(range(len(batches))):
        np.testing.assert_array_equal(again(number), batches[number], "any batch can be asked for by itself")
    halves = np.concatenate([again(3, slice(0, batch_size // 2)), again(3, slice(batch_size // 2, batch_size))])
    np.testing.assert_array_equal(halves, batches[3], "parts of processes are those of the batch")


def test_groups_are_mixed_within_an_epoch():
    order = Order([64, 64], 4, seed=0)
    first = [int(order(number)[0] >= 64) for number in range(32)]
    assert sum(first) == 16
    assert sum(a != b for a, b in itertools.pairwise(first)) > 4, "not one group after the other"


@pytest.mark.parametrize(("size", "count", "unit"), [(64, 5, 4), (512, 9, 32), (1024, 5, 64), (256, 1, 8)])
def test_shapes_have_about_the_same_area(size, count, unit):
    shapes = buckets.shapes(size, count, unit)
    assert len(shapes) <= count
    assert (size, size) in shapes
    for height, width in shapes:
        assert not height % unit
        assert not width % unit
        assert abs(height * width / size**2 - 1) < 0.15
    assert {(w, h) for h, w in shapes} == {*shapes}, "upright and wide ones mirror each other"


def test_a_picture_goes_to_the_shape_that_cuts_least():
    shapes = buckets.shapes(512, 5, 32)
    for i, (height, width) in enumerate(shapes):
        assert buckets.nearest(shapes, 3 * height, 3 * width) == i
    assert buckets.nearest(shapes, 10, 4000) == len(shapes) - 1
    with pytest.raises(ValueError, match="multiple of 32"):
        buckets.shapes(500, 3, 32)
    with pytest.raises(ValueError, match="buckets is 0"):
        buckets.shapes(512, 0, 32)
