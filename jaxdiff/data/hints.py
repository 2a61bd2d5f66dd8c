"""Pictures that steer others: made of those on the host, edges and what a blur leaves; or files that have their names.

`canny` follows OpenCV's: the gradient is Sobel's, |dx| + |dy|, of the channel where that is largest; a pixel is an edge
where the gradient is largest along its own direction, and above `high`, or above `low` and joined to such pixels.

Sources: Canny 1986, IEEE TPAMI 8(6), section VI; Zhang et al. 2023, arXiv 2302.05543, section 4 (hints).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from jaxdiff.data import picture
from jaxdiff.data.captions import files
from jaxdiff.data.config import Source
from jaxdiff.data.source import hints_of, names_of
from jaxdiff.data.text import listing


def canny(image: UInt8[np.ndarray, "h w 3"], low: float = 100.0, high: float = 200.0) -> UInt8[np.ndarray, "h w 3"]:
    """Edges as white lines on black, the same in all three channels."""
    x = image.astype(np.float32)
    along = lambda axis: np.stack([ndimage.sobel(x[..., c], axis, mode="nearest") for c in range(3)], -1)
    gradients = [along(axis) for axis in (0, 1)]
    sizes = np.abs(gradients[0]) + np.abs(gradients[1])
    chosen = sizes.argmax(-1)[..., None]
    dy, dx, size = (np.take_along_axis(y, chosen, -1)[..., 0] for y in (*gradients, sizes))
    padded = np.pad(size, 1)
    around = {
        (i, j): padded[1 + i : 1 + i + len(x), 1 + j : 1 + j + x.shape[1]] for i in (-1, 0, 1) for j in (-1, 0, 1)
    }
    flat = np.abs(dy) < np.tan(np.pi / 8) * np.abs(dx)
    steep = np.abs(dy) > np.tan(3 * np.pi / 8) * np.abs(dx)
    same = dy * dx > 0
    # of two equals the first is the edge, so that a plateau of two pixels gives one line
    before = np.select([flat, steep, same], [around[0, -1], around[-1, 0], around[-1, -1]], around[-1, 1])
    after = np.select([flat, steep, same], [around[0, 1], around[1, 0], around[1, 1]], around[1, -1])
    weak = (size > low) & (size > before) & (size >= after)
    labels, count = ndimage.label(weak, np.ones((3, 3)))
    kept = np.zeros(count + 1, bool)
    kept[labels[weak & (size > high)]] = True
    return np.repeat(np.where(kept[labels], np.uint8(255), np.uint8(0))[..., None], 3, -1)


def blur(image: UInt8[np.ndarray, "h w 3"], deviation: float = 8.0) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the picture through a Gaussian of this deviation, in pixels."""
    return np.round(ndimage.gaussian_filter(image.astype(np.float32), (deviation, deviation, 0))).astype(np.uint8)


def beside(folder: Path, names: Sequence[str], option: str) -> dict[str, Path]:
    """Finds the pictures in a folder, by their paths below it without the ending.

    Args:
      folder: folder of hints or maps.
      names: names of the pictures that each need one, whatever their endings.
      option: names the folder in errors.

    Raises:
      FileNotFoundError: if there is no folder.
      ValueError: if the pictures have no names, or some have nothing here.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{option} is {folder}: there is no such folder")
    if not names:
        raise ValueError(f"{option} goes with pictures in a folder, whose names its files have: give one as data.name")
    pictures = [path for path in files(folder) if path.suffix.lower() in picture.SUFFIXES]
    found = {str(path.relative_to(folder).with_suffix("")): path for path in pictures}
    if lacking := [name for name in names if str(Path(name).with_suffix("")) not in found]:
        raise ValueError(
            f"{folder} lacks {len(lacking)} of {len(names)}: {listing(lacking)}; a file has the name of its picture"
        )
    return found


def check_named(source: Source, option: str) -> None:
    """Refuses data of which some pictures have no hint in metadata.jsonl.

    Args:
      source: source of the pictures.
      option: names in errors what asks for hints.

    Raises:
      ValueError: names the pictures, at most ten.
    """
    named, hints = names_of(source), hints_of(source)
    if lacking := [name for name, hint in zip(named, hints, strict=True) if hint is None]:
        raise ValueError(
            f"{option}, and {len(lacking)} of {len(named)} pictures have no hint: {listing(lacking)}; give each a "
            '"hint" in metadata.jsonl, or give task.folder'
        )
    if not named:
        raise ValueError(f"{option}: give task.folder, or name hints in the metadata.jsonl of a folder of pictures")


def read(path: Path, size: int) -> np.ndarray:
    """Reads a hint, scaled and cut as `picture.decode` does."""
    return picture.decode(path, size)


def read_beside(found: Mapping[str, Path], name: str, size: int, *, nearest: bool = False) -> np.ndarray:
    """Reads the file that goes with a picture, scaled and cut as `picture.decode` does.

    Raises:
      OSError: if there is none, or it is damaged.
    """
    path = found.get(str(Path(name).with_suffix("")))
    if path is None:
        raise FileNotFoundError(f"nothing goes with the picture {name}: add a file of its name")
    return picture.decode(path, size, nearest=nearest)
