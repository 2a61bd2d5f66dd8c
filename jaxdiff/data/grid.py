"""Pictures to look at: a grid with a caption under each, and PNG files that carry how they were made."""

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo


def grid(images: np.ndarray, captions: Sequence[str] = (), columns: int | None = None, side: int = 96) -> Image.Image:
    """Lays out many pictures as one.

    Args:
      images: uint8 [n h w 3].
      captions: one for each, written under it; none leaves no room for text.
      columns: pictures a row; by default as many as make the grid nearly square.
      side: small pictures are enlarged, pixel by pixel, to at least so many pixels.
    """
    count, height, width, _ = images.shape
    columns = min(columns or int(np.ceil(np.sqrt(count))), count)
    scale = max(1, round(side / max(height, width)))
    cell, gap, line = (width * scale, height * scale), 6, 12
    font = ImageFont.load_default(10)
    texts = [textwrap.wrap(caption, max(8, cell[0] // 6))[:2] for caption in captions] or [[]] * count
    room = line * max(map(len, texts)) + (4 if captions else 0)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (cell[0] + gap) + gap, rows * (cell[1] + room + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, lines) in enumerate(zip(images, texts, strict=True)):
        x, y = gap + i % columns * (cell[0] + gap), gap + i // columns * (cell[1] + room + gap)
        sheet.paste(Image.fromarray(image).resize(cell, Image.Resampling.NEAREST), (x, y))
        draw.rectangle((x - 1, y - 1, x + cell[0], y + cell[1]), outline=(225, 225, 225))
        for j, text in enumerate(lines):
            draw.text((x + cell[0] // 2, y + cell[1] + 3 + j * line), text, "black", font, anchor="ma")
    return sheet


def save_png(path: Path | str, image: Image.Image, made_by: Mapping[str, Any]) -> None:
    """Writes a PNG, whole or not at all, with `made_by` as JSON in its text chunk "parameters"."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    info.add_itxt("parameters", json.dumps(dict(made_by), ensure_ascii=False))
    part = path.with_name(path.name + ".part")
    image.save(part, "PNG", pnginfo=info)
    os.replace(part, path)
