"""Pictures on the host before and after a network: sizes it can take, masks, and a canvas made larger."""

import warnings

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

LARGEST = 2**14
"""The longest side of a picture, in pixels: more is taken for a slip, before memory runs out."""


def check_size(height: int, width: int) -> None:
    """Refuses sides that are not from 1 to `LARGEST`."""
    if not (1 <= height <= LARGEST and 1 <= width <= LARGEST):
        raise ValueError(f"the pictures would be {height}x{width}: expected sides from 1 to {LARGEST}")


def fit(height: int, width: int, unit: int) -> tuple[int, int]:
    """Returns the nearest size whose sides are multiples of `unit`; a warning says so where it is another.

    Raises:
      ValueError: if a side is not from 1 to `LARGEST`.
    """
    check_size(height, width)
    fitted = tuple(max(1, round(side / unit)) * unit for side in (height, width))
    if fitted != (height, width):
        warnings.warn(
            f"{height}x{width} pictures are made as {fitted[0]}x{fitted[1]}: sides must be multiples of {unit}",
            stacklevel=3,
        )
    return fitted[0], fitted[1]


def resize(pictures: UInt8[np.ndarray, "b i j c"], height: int, width: int) -> UInt8[np.ndarray, "b h w c"]:
    """Resizes pictures by Lanczos' filter."""
    if pictures.shape[1:3] == (height, width):
        return pictures
    one = lambda x: Image.fromarray(x).resize((width, height), Image.Resampling.LANCZOS)
    return np.stack([np.asarray(one(x)) for x in pictures])


def resize_mask(mask: Float[np.ndarray, "b i j 1"], height: int, width: int) -> Float[np.ndarray, "b h w 1"]:
    """Resizes masks: each pixel is the nearest one."""
    rows, columns = (np.arange(to) * side // to for to, side in zip((height, width), mask.shape[1:3], strict=True))
    return mask[:, rows][:, :, columns]


def cubic(x: Float[np.ndarray, "b i j c"], height: int, width: int) -> Float[np.ndarray, "b h w c"]:
    """Resizes numbers by PyTorch's bicubic filter, which reads four neighbours even where a picture is made smaller."""

    def weights(there: int, here: int) -> Float[np.ndarray, "h t"]:
        at = (np.arange(here) + 0.5) * there / here - 0.5
        first, matrix = np.floor(at).astype(int) - 1, np.zeros((here, there))
        for n in range(4):
            d = np.abs(at - first - n)
            near, far = ((1.25 * d - 2.25) * d) * d + 1, ((-0.75 * d + 3.75) * d - 6) * d + 3
            np.add.at(matrix, (np.arange(here), np.clip(first + n, 0, there - 1)), np.where(d <= 1, near, far))
        return matrix

    rows, columns = weights(x.shape[1], height), weights(x.shape[2], width)
    return np.einsum("hi,bijc,wj->bhwc", rows, x.astype(np.float64), columns, optimize=True)


def nearest(pictures: UInt8[np.ndarray, "b i j c"], height: int, width: int) -> UInt8[np.ndarray, "b h w c"]:
    """Resizes maps whose colours are names: each pixel is the one nearest to its middle."""
    one = lambda x: Image.fromarray(x).resize((width, height), Image.Resampling.NEAREST)
    return np.stack([np.asarray(one(x)) for x in pictures])


def check_pictures(x: np.ndarray, count: int, what: str = "image") -> UInt8[np.ndarray, "b h w 3"]:
    """Checks that there is one picture for each of `count` prompts; a single one serves all.

    Raises:
      ValueError: if they are of another type or shape, or another number.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[-1] != 3 or x.dtype != np.uint8:
        raise ValueError(f"{what} is {x.dtype} of shape {x.shape}: expected uint8 [pictures, height, width, 3]")
    return _for_each(x, count, what)


def check_mask(mask: np.ndarray, image: np.ndarray) -> Float[np.ndarray, "b h w 1"]:
    """Returns a mask for each picture, of its size: 1 where new content goes, 0 elsewhere.

    Raises:
      ValueError: if it is of another size, or has values outside [0, 1].
    """
    mask = np.asarray(mask)
    if mask.ndim != 4 or mask.shape[-1] != 1:
        raise ValueError(f"mask has shape {mask.shape}: expected [pictures, height, width, 1]")
    if mask.shape[1:3] != image.shape[1:3]:
        raise ValueError(
            f"mask is {mask.shape[1]}x{mask.shape[2]} and image {image.shape[1]}x{image.shape[2]}: expected one size"
        )
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise ValueError(
            f"mask has values from {mask.min()} to {mask.max()}: expected 1 where new content goes, else 0"
        )
    return (_for_each(mask, len(image), "mask") >= 0.5).astype(np.float32)


def _for_each(x: np.ndarray, count: int, what: str) -> np.ndarray:
    if len(x) not in (1, count):
        raise ValueError(f"there are {len(x)} pictures in {what} and {count} prompts: expected one for each, or one")
    return np.repeat(x, count, 0) if len(x) < count else x


def outpaint(
    image: UInt8[np.ndarray, "b i j 3"], *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0
) -> tuple[UInt8[np.ndarray, "b h w 3"], Float[np.ndarray, "b h w 1"]]:
    """Returns the picture on a larger canvas and the mask of what is new: a pipeline's `image` and `mask`.

    The new part repeats the border, so that colours go on where little is changed.

    Raises:
      ValueError: if a side would shrink, or grow beyond `LARGEST`.
    """
    if min(left, right, top, bottom) < 0:
        raise ValueError(f"outpaint by left {left}, right {right}, top {top}, bottom {bottom}: expected 0 or more")
    check_size(image.shape[1] + top + bottom, image.shape[2] + left + right)
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    mask = np.pad(np.zeros((*image.shape[:3], 1), np.float32), around, constant_values=1.0)
    return np.pad(image, around, mode="edge"), mask
