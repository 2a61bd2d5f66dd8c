import json

import numpy as np
import pytest
from PIL import Image

from jaxdiff.data.grid import grid, save_png


def flat(*colors, side=8):
    """One plain picture of each color."""
    return np.stack([np.full((side, side, 3), color, np.uint8) for color in colors])


def at(sheet, x, y):
    return sheet.getpixel((x, y))


def test_pictures_stand_row_by_row_enlarged_pixel_by_pixel():
    sheet = grid(flat((9, 0, 0), (0, 9, 0), (0, 0, 9)), columns=2, side=16)
    assert sheet.size == (2 * 16 + 3 * 6, 2 * 16 + 3 * 6)
    corners = {(6, 6): (9, 0, 0), (28, 6): (0, 9, 0), (6, 28): (0, 0, 9)}
    for (x, y), color in corners.items():
        # the 16 x 16 pixels of the enlarged picture, corner to corner
        assert at(sheet, x, y) == at(sheet, x + 15, y + 15) == color
    assert at(sheet, 30, 30) == (255, 255, 255)


def test_a_large_picture_keeps_its_pixels():
    image = np.random.default_rng(0).integers(0, 256, (1, 100, 100, 3), dtype=np.uint8)
    sheet = np.asarray(grid(image))
    np.testing.assert_array_equal(sheet[6:106, 6:106], image[0])


def test_a_grid_is_nearly_square():
    assert grid(flat(*[(0, 0, 0)] * 7), side=8).size == (3 * 14 + 6, 3 * 14 + 6)
    assert grid(flat((0, 0, 0)), columns=5, side=8).size == (20, 20)


def test_captions_are_written_below_and_take_two_lines_at_most():
    images = flat((9, 9, 9), (9, 9, 9), side=96)
    bare, short, long = (grid(images, captions, 2) for captions in ((), ("a", "b"), ("many words " * 20, "b")))
    assert bare.height < short.height < long.height == short.height + 12
    ink = np.asarray(short)[6 + 96 + 2 :]
    assert (ink[:, :108] < 128).any()
    assert (ink[:, 108:] < 128).any()
    assert not (np.asarray(bare)[6 + 96 + 2 :] < 128).any()


def test_a_caption_for_each_picture_is_asked_for():
    with pytest.raises(ValueError, match="zip"):
        grid(flat((0, 0, 0), (0, 0, 0)), ("one",))


def test_a_png_carries_what_made_it_and_is_written_whole(tmp_path):
    path = tmp_path / "new" / "a.png"
    made_by = {"prompt": "ein rotes Herz ❤", "seed": 3, "eta": None, "sizes": [1, 2]}
    save_png(path, Image.new("RGB", (4, 5), "red"), made_by)
    with Image.open(path) as image:
        assert image.size == (4, 5)
        assert json.loads(image.text["parameters"]) == made_by
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
