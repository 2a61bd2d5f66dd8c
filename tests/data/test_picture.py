import io

import numpy as np
import pytest
from PIL import Image

from jaxdiff.data import picture


def encoded(image, form="png", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_a_picture_of_its_size_is_kept_bit_for_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(picture.decode(encoded(Image.fromarray(pixels)), 8), pixels)
    assert np.array_equal(picture.decode(picture.encode(pixels).read(), 8), pixels)


def test_short_side_is_scaled_and_the_centre_cut():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (10, 200, 30)  # the middle square
    for pixels in (wide, wide.transpose(1, 0, 2)):
        result = picture.decode(encoded(Image.fromarray(pixels)), 10)
        assert result.shape == (10, 10, 3)
        assert (result[2:-2, 2:-2] == (10, 200, 30)).all()  # the filter mixes in neighbours at the border


def test_scaling_down_is_antialiased():
    """Stripes of one pixel average to grey; picking pixels would give black or white."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert abs(picture.decode(encoded(Image.fromarray(stripes)), 16)[:, 1:-1].astype(int) - 127.5).max() <= 2


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 100), (100, 100, 100)),
        (Image.fromarray(np.full((4, 4), 100 * 257, np.uint16)), (100, 100, 100)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (0, 0, 200, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 51)), (255, 204, 204)),  # 0.2 red over 0.8 white
        (Image.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
        (Image.new("RGB", (4, 4), (1, 2, 3)).convert("P", palette=Image.Palette.ADAPTIVE), (1, 2, 3)),
    ],
    ids=["grey", "grey 16", "bits", "clear", "half clear", "grey clear", "palette"],
)
def test_every_mode_becomes_rgb_on_white(image, expected):
    assert (picture.decode(encoded(image), 4) == expected).all()


def test_exif_orientation_is_applied():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    turned = picture.decode(encoded(Image.fromarray(pixels), "webp", lossless=True, exif=exif), 8)
    assert np.array_equal(turned, pixels[::-1])


def test_every_kind_of_damage_is_an_oserror(tmp_path):
    """Bytes changed or cut at random: PIL raises a dozen types of errors for these, the caller sees one."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    failed = 0
    for form in ("png", "jpeg", "webp"):
        whole = encoded(pixels, form)
        for trial in range(60):
            damaged = bytearray(whole)
            for _ in range(3):
                damaged[rng.integers(min(len(whole), 120))] = rng.integers(256)
            try:
                picture.decode(bytes(damaged if trial % 2 else damaged[: rng.integers(len(whole))]), 8)
            except OSError:
                failed += 1
    assert failed > 90
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"a\.png"):
        picture.decode(tmp_path / "a.png", 8)


def test_decoded_pictures_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        picture.decode(encoded(Image.new("RGB", (4, 4))), 4)[0] = 1
