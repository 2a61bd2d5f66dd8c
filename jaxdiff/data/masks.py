"""Masks of what is left out of a picture, drawn by chance."""

import numpy as np
from jaxtyping import UInt8


def draw(rng: np.random.Generator, height: int, width: int, whole: float = 0.25) -> UInt8[np.ndarray, "h w 1"]:
    """Returns a mask, 1 where a picture is to be filled: one to four boxes or ellipses, or with `whole` all of it.

    Sides are an eighth to three quarters of the picture's, and the middle of each lies within it.
    """
    if rng.random() < whole:
        return np.ones((height, width, 1), np.uint8)
    mask, (y, x) = np.zeros((height, width), bool), np.mgrid[:height, :width] + 0.5
    for _ in range(rng.integers(1, 5)):
        (top, left), (tall, wide) = rng.random(2) * (height, width), rng.uniform(1 / 8, 3 / 4, 2) * (height, width)
        dy, dx = np.abs(y - top) / max(tall / 2, 0.5), np.abs(x - left) / max(wide / 2, 0.5)
        mask |= dy**2 + dx**2 <= 1 if rng.random() < 0.5 else (dy <= 1) & (dx <= 1)
    return mask[..., None].astype(np.uint8)
