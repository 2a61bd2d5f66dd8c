"""Encoded pictures of any size and mode to uint8 arrays."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def decode(encoded: bytes | Path, size: int | None) -> np.ndarray:
    """Reads a picture as uint8 [size, size, 3], or [h, w, 3] where `size` is None.

    It is turned as its EXIF says, put on white where it is transparent, brought to RGB, scaled with antialiasing until
    its short side is `size`, and cut to its centre. Of an animation the first frame is taken.

    Raises:
      OSError: if the picture is damaged or of no known format; the message names the file.
    """
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as opened:
            image = _rgb(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # PIL's plugins use them all
        raise OSError(f"{encoded if isinstance(encoded, Path) else 'a picture'}: {error}") from error
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = np.array(image)
    pixels.setflags(write=False)  # it may be kept and handed out again
    return pixels


def encode(pixels: np.ndarray) -> io.BytesIO:
    """uint8 [h, w, c] as a PNG file object; c is 1, 3 or 4."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "png")
    file.seek(0)
    return file


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which PIL would clip to 8 instead of scaling
        image = Image.fromarray((np.asarray(image, np.float64) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
