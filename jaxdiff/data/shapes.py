"""Pictures of one bright shape, made of five known factors: to see whether a model's latents tell them apart."""

import numpy as np
from jaxtyping import Int

from jaxdiff.data.config import DataConfig, Example

FACTORS = {"form": 2, "row": 8, "column": 8, "size": 4, "shade": 4}
"""The values that each factor has; every combination is one picture."""
FORMS = ("square", "disc")


def factors() -> Int[np.ndarray, "n 5"]:
    """Returns the factors of each picture, the last one changing fastest."""
    return np.stack(np.meshgrid(*[np.arange(n) for n in FACTORS.values()], indexing="ij"), -1).reshape(-1, 5)


class ShapesSource:
    """All combinations of the factors, of which every tenth is of the split `test`, and the others of `train`."""

    labels: tuple[str, ...] = FORMS

    def __init__(self, config: DataConfig):
        """Takes the side of the pictures, and the split: train, test or all.

        Raises:
          ValueError: for another split.
        """
        if config.split not in ("train", "test", "all"):
            raise ValueError(f"data.split is {config.split!r}: expected train, test or all of 'shapes'")
        chosen = np.random.default_rng(0).permutation(len(factors())) % 10 == 0
        keep = {"train": ~chosen, "test": chosen, "all": chosen | True}[config.split]
        self._size, self.factors = config.size, factors()[keep]

    def __len__(self) -> int:
        return len(self.factors)

    def __getitem__(self, index: int) -> Example:
        form, row, column, size, shade = self.factors[index]
        at = (np.arange(4 * self._size) + 0.5) / (4 * self._size)  # four points a pixel, whose mean it is
        y, x = at[:, None] - (0.25 + row / 14), at[None] - (0.25 + column / 14)
        radius = 0.08 + 0.04 * size
        inside = np.maximum(np.abs(x), np.abs(y)) < radius if form == 0 else x * x + y * y < radius * radius
        part = inside.reshape(self._size, 4, self._size, 4).mean((1, 3))
        level = np.rint(part * (255 - 45 * shade)).astype(np.uint8)
        label = int(form)
        return Example(image=np.repeat(level[..., None], 3, -1), caption=FORMS[label], label=label)

    def captions(self) -> list[str]:
        """Returns all captions in order."""
        return [FORMS[form] for form in self.factors[:, 0]]
