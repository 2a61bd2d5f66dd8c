"""Sets of pictures: what is converted is said, and what cannot be compared is refused."""

import numpy as np
import pytest
from PIL import Image

from jaxdiff.evaluation.pictures import first, folder


@pytest.fixture
def place(tmp_path):
    """Five pictures: RGB, grey, 16-bit grey, with alpha, palette."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    rgb.save(tmp_path / "a.png")
    rgb.convert("L").save(tmp_path / "b.png")
    Image.fromarray(np.full((6, 8), 257 * 99, np.uint16)).save(tmp_path / "c.png")
    alpha = rgb.convert("RGBA")
    alpha.putalpha(0)
    (tmp_path / "deep").mkdir()
    alpha.save(tmp_path / "deep" / "d.png")
    rgb.quantize(16).save(tmp_path / "e.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_pictures_of_all_kinds_become_rgb_and_it_is_said(place):
    pictures = folder(place)
    assert list(pictures.names) == ["a.png", "b.png", "c.png", "deep/d.png", "e.png"]
    assert pictures.shape == (6, 8)
    batches = list(pictures.batches(2))
    assert [x.shape for x in batches] == [(2, 6, 8, 3), (2, 6, 8, 3), (1, 6, 8, 3)]
    np.testing.assert_array_equal(batches[0][0], np.asarray(Image.open(place / "a.png")))
    assert (batches[1][0] == 99).all()
    assert (batches[1][1] == 255).all()
    assert "2 of 5 pictures" in pictures.notes[0]
    assert "grey" in pictures.notes[0]
    assert "1 of 5 pictures" in pictures.notes[1]
    assert "put on white" in pictures.notes[1]
    assert first(pictures, 3).count == len(first(pictures, 3).names) == 3


def test_mixed_sizes_are_refused_or_brought_to_one(place):
    Image.new("RGB", (7, 9)).save(place / "x.png")
    with pytest.raises(ValueError, match=r"have 2 sizes: 8x6 \(5\), 7x9 \(1\); bring them to one with --size"):
        folder(place)
    scaled = folder(place, 4)
    assert next(scaled.batches(9)).shape == (6, 4, 4, 3)
    assert "scaled and cut to 4x4" in scaled.notes[-1]


def test_what_is_no_folder_of_pictures_is_named(place):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        folder(place / "nowhere")
    (place / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures in"):
        folder(place / "empty")
    (place / "broken.png").write_text("no picture")
    with pytest.raises(OSError, match=r"broken\.png"):
        folder(place)
