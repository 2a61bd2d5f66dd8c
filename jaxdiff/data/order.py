"""Decides which examples a batch holds: a shuffled stream without end, of which any batch can be named.

The stream is the concatenation of the epochs, each in its own order drawn from the seed; batch n is rows n B to n B +
B - 1 of it. So batches may cross the border of two epochs, nothing is dropped, and a source may be smaller than a
batch.

Where examples lie in groups that may not share a batch (pictures of several shapes), each group of n examples has such
a stream of its own, and epoch e of all brings its batches floor(e n / B) .. floor((e + 1) n / B) - 1, those of all
groups in an order drawn from the seed.

An epoch of up to TABLE examples is shuffled in a table; that of a larger set or group is computed (`permutation`).
"""

import functools
from collections.abc import Sequence

import numpy as np

from jaxdiff.data.permutation import permuted

TABLE = 2**21
"""Examples up to which an epoch's order is a table, of 16 MiB: all orders are equally likely, unlike computed ones."""


class Order:
    """The numbers of the examples in each batch."""

    def __init__(self, groups: Sequence[int], batch_size: int, seed: int):
        """Takes the sizes of the groups, which lie one after another in the source."""
        self._groups = [int(size) for size in groups]
        self._starts = np.cumsum([0, *self._groups])
        self._batch_size, self._seed = batch_size, seed
        self._shuffled = functools.lru_cache(4 * len(groups))(self._shuffle)
        self._epoch = functools.lru_cache(4)(self._of_epoch)

    def __call__(self, number: int, part: slice = slice(None)) -> np.ndarray:
        """Returns the examples of a batch, or of a part of it, as int64."""
        group, nth = (0, number) if len(self._groups) == 1 else self._find(number)
        size, start = self._groups[group], self._starts[group]
        rows = np.array(range(nth * self._batch_size, (nth + 1) * self._batch_size)[part], np.int64)
        epochs = (self._of(group, int(epoch), rows[rows // size == epoch] % size) for epoch in np.unique(rows // size))
        return start + np.concatenate([*epochs, np.zeros(0, np.int64)])

    def _of(self, group: int, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Returns the examples of a group at some positions of an epoch."""
        size = self._groups[group]
        if size > TABLE:
            return permuted(positions, size, self._key(group, epoch))
        return self._shuffled(group, epoch)[positions]

    def _key(self, group: int, epoch: int) -> tuple[int, ...]:
        return (self._seed, epoch) if len(self._groups) == 1 else (self._seed, epoch, group, 0)

    def _shuffle(self, group: int, epoch: int) -> np.ndarray:
        return np.random.default_rng(self._key(group, epoch)).permutation(self._groups[group])

    def _before(self, epoch: int) -> list[int]:
        """Counts the batches of each group that come before an epoch."""
        return [epoch * size // self._batch_size for size in self._groups]

    def _of_epoch(self, epoch: int) -> list[tuple[int, int]]:
        """Returns the batches of an epoch, each a group and the number among the batches of that group."""
        ranges = zip(self._before(epoch), self._before(epoch + 1), strict=True)
        listed = [(group, nth) for group, (first, end) in enumerate(ranges) for nth in range(first, end)]
        return [listed[i] for i in np.random.default_rng((self._seed, epoch, 0, 1)).permutation(len(listed))]

    def _find(self, number: int) -> tuple[int, int]:
        epoch = number * self._batch_size // sum(self._groups)
        while sum(self._before(epoch + 1)) <= number:
            epoch += 1
        return self._epoch(epoch)[number - sum(self._before(epoch))]
