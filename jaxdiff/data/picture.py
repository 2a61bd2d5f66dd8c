"""Reads encoded pictures of every format and mode as uint8 RGB: the one place of the library that opens a picture.

What is read:

- The formats of `FORMATS`, known by the file's content. Of a file of several pictures (GIF, APNG, WebP, TIFF) the
  first.
- Pixels as the file's EXIF turns them, on white where they are transparent.
- Grey, palettes, CMYK, YCbCr and CIELAB become RGB as Pillow converts them; colour profiles are not applied. Sixteen
  bits a channel become eight. Grey of 32 bits, signed or of floating point is refused: nothing says which value is
  white.
- Pictures of at most `MOST_PIXELS`, so that a small file cannot fill the memory.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TIFF", "WEBP")
SUFFIXES = (
    ".apng", ".avif", ".avifs", ".bmp", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx",
    ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tif", ".tiff", ".webp",
)  # fmt: skip
MOST_PIXELS = 2**27

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MOST_PIXELS says it, and as an error
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # what is damaged is refused here, in one line


class Look(NamedTuple):
    """The facts in a picture's header.

    Attributes:
      width: in pixels, after the turn that EXIF asks for.
      height: likewise.
      grey: whether it has no colours.
      transparent: whether some of it may be.
      several: whether the file holds further pictures, which are not read.
    """

    width: int
    height: int
    grey: bool
    transparent: bool
    several: bool


def decode(
    encoded: bytes | Path, size: int | tuple[int, int] | None = None, name: str = "", *, nearest: bool = False
) -> np.ndarray:
    """Reads a picture as uint8 [size, size, 3], or [h, w, 3] as it is; the module says how.

    Args:
      encoded: the file, or its content.
      size: the picture is scaled with antialiasing until its short side is `size`, and cut to its centre; (height,
        width): until it covers both.
      name: what errors call the picture; by default the file's path.
      nearest: whether each pixel is the nearest one, for maps whose colours are names.

    Returns:
      Pixels that cannot be written to.

    Raises:
      OSError: if the picture is damaged, too large, or of a format or mode that is not read; one line that names it.
    """
    with _opened(encoded, name) as image:
        turned = _turn(to_rgb(image), image)
        height, width = (size, size) if isinstance(size, int | None) else size
        if height and width and turned.size != (width, height):
            way = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
            turned = ImageOps.fit(turned, (width, height), way)
        pixels = np.array(turned)
    pixels.setflags(write=False)  # it may be kept and handed out again
    return pixels


def look(encoded: bytes | Path, name: str = "") -> Look:
    """Reads a picture's header; `decode` gives pixels of this size.

    Raises:
      OSError: as `decode`, where the header shows it.
    """
    with _opened(encoded, name) as image:
        width, height = image.size
        # of a TIFF, Pillow gives the size turned, and turns the pixels when it reads them
        if width != height and image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
        grey = image.mode in _GREY_MODES or image.mode.startswith("I;16")
        return Look(width, height, grey, image.has_transparency_data, getattr(image, "is_animated", False))


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an opened picture of any mode, whatever its EXIF says; see the module.

    Raises:
      ValueError: for pixels of which nothing says how bright they are.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(image).convert("RGB")
    if image.format == "PNG":
        _fit_transparent_colour(image)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # Pillow knows no way from La to RGBA
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def encode(pixels: np.ndarray) -> io.BytesIO:
    """Writes uint8 [h, w, c] as a PNG file object; c is 1, 3 or 4."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "png")
    file.seek(0)
    return file


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(form for form in FORMATS if form in Image.OPEN)  # AVIF is not in every Pillow


@contextlib.contextmanager
def _opened(encoded: bytes | Path, name: str) -> Iterator[Image.Image]:
    """Returns an opened picture; every error of opening and reading it becomes an OSError of one line."""
    file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    name = name or ("a picture" if isinstance(encoded, bytes) else str(encoded))
    try:
        with Image.open(file, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except Image.UnidentifiedImageError as error:
        raise OSError(f"{name} is not a picture, or damaged: expected one of {', '.join(_formats())}") from error
    except Image.DecompressionBombError as error:
        raise OSError(f"{name} has more than {MOST_PIXELS:,} pixels, the most that are read: scale it down") from error
    except Exception as error:  # Pillow's plugins raise a dozen kinds for damaged files, from struct.error to KeyError
        if isinstance(error, OSError) and error.filename:
            raise  # no such file, no permission
        what = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"{name} cannot be read: {what}") from error


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _turn(pixels: Image.Image, opened: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(opened))
    return pixels if turn is None else pixels.transpose(turn)


def _grey(image: Image.Image) -> Image.Image:
    """Scales sixteen bits to eight, which Pillow would clip."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating point" if image.mode == "F" else "32 bits or signed"
        raise ValueError(f"its pixels are {kind}, and nothing says which value is white: save it with 8 or 16 bits")
    values = np.asarray(image, np.float64)
    white = 4095 if tags.get(_BITS, (16,))[0] == 12 else 65535
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        values = white - values
    eight = (values * (255 / white)).round()
    if "transparency" in image.info:
        eight[values == image.info["transparency"]] = 255
    return Image.fromarray(eight.astype(np.uint8))


def _fit_transparent_colour(image: Image.Image) -> None:
    """Brings a PNG's transparent colour from the bits of the file to those of Pillow's pixels."""
    tiles: Any = getattr(image, "tile", None)
    rawmode = str(tiles[0][3]) if tiles and "transparency" in image.info else ""
    image.load()
    if rawmode in ("L;2", "L;4"):
        image.info["transparency"] *= 255 // (2 ** int(rawmode[-1]) - 1)
    if rawmode == "RGB;16B":
        raise ValueError(
            "it has 16 bits and a transparent colour, which 8 bits may not tell from others: give it alpha"
        )
