"""An order that is computed is a permutation, looks shuffled, and takes no memory."""

import tracemalloc

import numpy as np
import pytest

from jaxdiff.data import order
from jaxdiff.data.order import Order
from jaxdiff.data.permutation import permuted

BILLION = 10**9


def test_each_number_comes_once_for_every_small_size():
    for size in (*range(1, 260), 1023, 1024, 1025, 4096, 5000):
        np.testing.assert_array_equal(np.sort(permuted(np.arange(size), size, (3, size))), np.arange(size))


def test_each_position_gets_each_number_equally_often():
    """Chi-squared of 20 x 20 counts in 400 orders: of 361 degrees of freedom, with a deviation of 27."""
    size, counts = 20, np.zeros((20, 20))
    for seed in range(400):
        counts[np.arange(size), permuted(np.arange(size), size, (seed,))] += 1
    assert ((counts - 20) ** 2 / 20).sum() < 361 + 5 * 27


def test_neighbours_and_two_epochs_have_nothing_to_do_with_each_other():
    positions = np.arange(20_000)
    first, second = (permuted(positions, BILLION, (5, epoch)) / BILLION for epoch in (0, 1))
    for a, b in ((first[1:], first[:-1]), (first, second), (first, positions)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))
    assert abs(first.mean() - 0.5) < 5 / np.sqrt(12 * len(first))


def test_the_order_of_a_billion_examples_takes_no_memory_and_repeats_none():
    tracemalloc.start()
    of = Order([BILLION], 512, seed=1)
    rows = np.concatenate([of(number) for number in (*range(50), *range(BILLION // 512 - 3, BILLION // 512 + 1))])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
    within = rows[: -512 + BILLION % 512]  # the last batch crosses into the next epoch
    assert len(np.unique(within)) == len(within)
    assert 0 <= rows.min() < rows.max() < BILLION


@pytest.mark.parametrize("groups", [[30], [7, 30, 2]])
def test_batches_of_large_sets_are_made_as_those_of_small_ones(groups, monkeypatch):
    monkeypatch.setattr(order, "TABLE", 4)
    of, size = Order(groups, 4, seed=0), sum(groups)
    rows = np.concatenate([of(number) for number in range(4 * size)])
    counts = np.bincount(rows, minlength=size)
    assert counts.max() - counts.min() <= 2 + (len(groups) > 1) * 2
    np.testing.assert_array_equal(np.concatenate([of(5, slice(0, 2)), of(5, slice(2, 4))]), of(5))
