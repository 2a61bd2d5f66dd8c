"""Pictures of noise, each with one of ten words as caption and class: to measure training where there are no data."""

import zlib

import numpy as np

from jaxdiff.data.config import DataConfig, Example

COLOURS = ("red", "green", "blue", "yellow", "purple", "grey", "black", "white", "orange", "brown")
COUNT = 2**16


class SyntheticSource:
    """Pictures that follow from their split and number, of which no file is read."""

    labels: tuple[str, ...] = COLOURS

    def __init__(self, config: DataConfig):
        """Takes the side of the pictures, and the split, whose pictures are others than another's."""
        self._size, self._split = config.size, zlib.crc32(config.split.encode())

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Example:
        image = np.random.default_rng((self._split, index)).integers(0, 256, (self._size, self._size, 3), np.uint8)
        label = index % len(COLOURS)
        return Example(image=image, caption=COLOURS[label], label=label)

    def captions(self) -> list[str]:
        """Returns all captions in order."""
        return [COLOURS[index % len(COLOURS)] for index in range(COUNT)]
