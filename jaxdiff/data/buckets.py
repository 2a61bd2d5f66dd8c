"""Shapes for pictures of many shapes: a few of about the same area, so that each is one compiled program.

Source: the aspect-ratio bucketing of Podell et al. 2023, arXiv 2307.01952, section 2.3, with fewer shapes.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxdiff.data.text import listing

WIDEST = 2.0
"""The ratio of the sides of the shape that is farthest from a square."""


def shapes(size: int, count: int, unit: int) -> tuple[tuple[int, int], ...]:
    """Returns shapes (height, width) of about size x size pixels, upright to wide, evenly spaced in log ratio.

    Args:
      size: side of the square.
      count: how many; where two become the same by rounding to `unit`, there is one.
      unit: all sides are multiples of it.

    Raises:
      ValueError: if `count` is below 1, or the size no multiple of `unit`.
    """
    if count < 1:
        raise ValueError(f"buckets is {count}: expected 1 or more shapes")
    if size % unit:
        raise ValueError(f"data.size is {size}: expected a multiple of {unit}, which the sides of the pictures must be")
    shapes = []
    for n in range(count):
        ratio = WIDEST ** (2 * n / (count - 1) - 1) if count > 1 else 1.0
        sides = (size / math.sqrt(ratio), size * math.sqrt(ratio))
        height, width = (max(1, round(side / unit)) * unit for side in sides)
        shapes.append((height, width))
    return tuple(dict.fromkeys(shapes))


def nearest(shapes: Sequence[tuple[int, int]], height: int, width: int) -> int:
    """Returns the number of the shape whose ratio of sides is nearest to a picture's, so that least is cut off."""
    return min(range(len(shapes)), key=lambda i: abs(math.log(shapes[i][1] * height / (shapes[i][0] * width))))


def chosen(source: Any, shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the number of the nearest shape for each picture of a source, by the headers alone.

    Args:
      source: data that say the sides of their pictures, `open_shaped`'s.
      shapes: height and width of each.

    Raises:
      ValueError: if pictures are smaller than their shape; names them.
    """
    with ThreadPoolExecutor() as pool:
        sides = list(pool.map(source.sides, range(len(source))))
    found = [nearest(shapes, *one) for one in sides]
    small = [i for i, one in enumerate(sides) if any(side < to for side, to in zip(one, shapes[found[i]], strict=True))]
    if small:
        names = getattr(source, "names", lambda: [f"number {i}" for i in range(len(sides))])()
        listed = listing(f"{names[i]} ({sides[i][0]}x{sides[i][1]})" for i in small)
        raise ValueError(
            f"{len(small)} of {len(sides)} pictures are smaller than {listing(f'{h}x{w}' for h, w in shapes)}, the "
            f"shapes that they are cut to: {listed}; remove them, or lower data.size"
        )
    return found
