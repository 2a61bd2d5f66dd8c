"""The 1797 written digits of scikit-learn, 8x8 of 17 grey levels, which its package holds: no download.

Source: Alpaydin and Kaynak 1998, UCI, Optical Recognition of Handwritten Digits (its test set).
"""

import importlib.util

import numpy as np

from jaxdiff.data.config import DataConfig, Example

SIDE, TRAIN = 8, 1500


class DigitsSource:
    """The digits in a fixed order, 1500 of the split `train` and the others of `test`."""

    labels: tuple[str, ...] = tuple(map(str, range(10)))

    def __init__(self, config: DataConfig):
        """Reads them; a side of a multiple of 8 repeats pixels.

        Raises:
          ValueError: without scikit-learn, for another split, or for another side.
        """
        if not importlib.util.find_spec("sklearn"):
            raise ValueError(
                "data.name is 'digits', of scikit-learn, which is not there: pip install 'jaxdiff[digits]'"
            )
        if config.split not in ("train", "test", "all"):
            raise ValueError(f"data.split is {config.split!r}: expected train, test or all of 'digits'")
        if config.size % SIDE:
            raise ValueError(f"data.size is {config.size}: expected a multiple of {SIDE} for 'digits'")
        from sklearn import datasets

        found = datasets.load_digits()
        order = np.random.default_rng(0).permutation(len(found.images))
        rows = {"train": order[:TRAIN], "test": order[TRAIN:], "all": order}[config.split]
        levels = np.rint(found.images[rows] * (255 / 16)).astype(np.uint8)
        large = levels.repeat(config.size // SIDE, 1).repeat(config.size // SIDE, 2)
        self._images, self._targets = np.repeat(large[..., None], 3, -1), found.target[rows]

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> Example:
        label = int(self._targets[index])
        return Example(image=self._images[index], caption=self.labels[label], label=label)

    def captions(self) -> list[str]:
        """Returns all captions in order."""
        return [self.labels[int(label)] for label in self._targets]
