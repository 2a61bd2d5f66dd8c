"""The picture that `jaxdiff sample` writes: whether it can be written is known before any work is done."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from jaxdiff.data.grid import save_png

SIDES = {".png": 2**31 - 1, ".jpg": 65_535, ".jpeg": 65_535, ".webp": 16_383}
"""Endings that can be written, and the longest side that their formats allow."""


def check(path: Path) -> None:
    """Refuses what cannot be written: a folder, an unknown ending, a place without permission.

    Raises:
      ValueError, OSError: says what it is, and what is expected.
    """
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder: give a file in it, {path / 'samples.png'}")
    if path.suffix.lower() not in SIDES:
        raise ValueError(f"--out {path} ends in {path.suffix or 'nothing'}: expected one of {', '.join(SIDES)}")
    check_place(path)


def check_place(path: Path) -> None:
    """Refuses a file that cannot be written where it is.

    Raises:
      OSError: says which folder is in the way.
    """
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise PermissionError(f"{path} cannot be written: there is no permission to write in {folder}")


def check_size(path: Path, pictures: int, columns: int, height: int, width: int) -> None:
    """Refuses more pictures than the format, or this machine's memory, has room for.

    Args:
      path: the file.
      pictures: how many.
      columns: columns of the grid.
      height: height of each.
      width: width of each.

    Raises:
      ValueError: says how much they need and how much there is.
    """
    scale = max(1, round(96 / max(height, width)))  # as `data.grid.grid` lays them out, with two lines of text
    sheet = columns * (scale * width + 6) + 6, -(-pictures // columns) * (scale * height + 34) + 6
    needed = 2 * (3 * sheet[0] * sheet[1] + 7 * pictures * height * width)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there / 2:
        raise ValueError(
            f"{pictures} pictures of {height}x{width} and their grid take {needed / 1e9:.1f} GB, and this machine has "
            f"{there / 1e9:.1f} GB: lower --num, or make them in several calls"
        )
    most = SIDES[path.suffix.lower()]
    if max(sheet) > most:
        raise ValueError(
            f"the grid is {sheet[0]}x{sheet[1]} pixels, and {path.suffix} files have at most {most} a side: choose .png"
        )


def write(path: Path, image: Image.Image, made_by: Mapping[str, Any]) -> None:
    """Writes the picture, whole or not at all, with `made_by` as JSON: in a PNG's text chunk, else in its EXIF."""
    if path.suffix.lower() == ".png":
        save_png(path, image, made_by)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x010E] = json.dumps(dict(made_by))  # ImageDescription, which is ASCII
    part = path.with_name(f"{path.name}.part")
    kind = "WEBP" if path.suffix.lower() == ".webp" else "JPEG"
    image.save(part, kind, exif=exif, quality=95)
    os.replace(part, path)


def read(path: Path) -> dict[str, Any]:
    """Returns the `made_by` of a picture that `write` wrote."""
    with Image.open(path) as image:
        text = image.info.get("parameters") or image.getexif()[0x010E]
    return json.loads(text)
