"""Every mode, depth and format of pictures is read with the right values or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxdiff.data import picture


def encoded(image, form="png", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width, height, bits, colour, rows, *chunks):
    """A PNG as the standard has it; `rows` are packed bytes, each without its filter byte."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*c) for c in ((b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b""))
    )


def tiff(width, height, bits, photometric, data):
    """A little-endian TIFF of one uncompressed strip."""
    samples = len(bits)
    places = {258: struct.pack(f"<{samples}H", *bits)}
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, samples, bits[0]),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
    ]
    tags += [(273, 4, 1, None), (277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, len(data))]
    start = 8 + 2 + 12 * len(tags) + 4
    out = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, kind, count, value in tags:
        value = start + 16 if tag == 273 else start if tag == 258 and samples > 2 else value
        out += struct.pack("<HHII", tag, kind, count, value)
    return out + b"\0" * 4 + places[258].ljust(16, b"\0") + data


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


def paletted(mode, *colour):
    image = Image.new(mode, (2, 2), (3, *colour) if colour else 3)
    image.putpalette([0, 0, 0] * 3 + [10, 20, 200])
    return image


# mode -> pixel and what it is in RGB on white; one value of a triple that stands alone is for all three colours
MODES = {
    "1": [(0, 0), (255, 255)],
    "L": [(0, 0), (100, 100), (255, 255)],
    "LA": [((100, 255), 100), ((100, 51), 224), ((7, 0), 255)],  # 0.2 x 100 + 0.8 x 255
    "La": [((100, 255), 100), ((20, 51), 224), ((0, 0), 255)],  # the same, multiplied
    "P": [(paletted("P"), (10, 20, 200))],
    "PA": [(paletted("PA", 255), (10, 20, 200)), (paletted("PA", 0), 255), (paletted("PA", 51), (206, 208, 244))],
    "RGB": [((1, 2, 3), (1, 2, 3))],
    "RGBA": [((1, 2, 3, 255), (1, 2, 3)), ((255, 0, 0, 51), (255, 204, 204)), ((0, 0, 200, 0), 255)],
    "RGBa": [((1, 2, 3, 255), (1, 2, 3)), ((51, 0, 0, 51), (255, 204, 204)), ((0, 0, 0, 0), 255)],
    "RGBX": [((1, 2, 3, 0), (1, 2, 3)), ((1, 2, 3, 255), (1, 2, 3))],
    "CMYK": [((0, 0, 0, 0), 255), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 155), 100), ((9, 9, 9, 255), 0)],
    "YCbCr": [((128, 128, 128), 128), ((255, 128, 128), 255), ((76, 85, 255), (254, 0, 0))],  # ITU-R BT.601
    "HSV": [((0, 255, 255), (255, 0, 0)), ((85, 255, 255), (0, 255, 0)), ((0, 0, 100), 100)],
    "I;16": [(0, 0), (100 * 257, 100), (65535, 255), (256, 1)],
    "I;16L": [(0, 0), (100 * 257, 100), (65535, 255), (256, 1)],
    "I;16B": [(0, 0), (100 * 257, 100), (65535, 255), (256, 1)],
    "I;16N": [(0, 0), (100 * 257, 100), (65535, 255), (256, 1)],
}
REFUSED = {"I": "32 bits or signed", "F": "floating point"}


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_of_pillow_becomes_rgb_on_white_or_is_refused(mode):
    if mode == "LAB":  # L* = 50 is 119 in sRGB, (54.29, 80.81, 69.89) its red; eight bits of Lab are a coarse grid
        lab = {(255, 128, 128): 255, (0, 128, 128): 0, (127, 128, 128): 118, (138, 209, 198): (255, 0, 0)}
        for pixel, expected in lab.items():
            got = np.asarray(picture.to_rgb(Image.new("LAB", (2, 2), pixel))).astype(int)
            assert abs(got - expected).max() <= (5 if expected == (255, 0, 0) else 1)
        return
    if mode in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[mode]):
            picture.to_rgb(Image.new(mode, (2, 2), 1))
        return
    for pixel, expected in MODES[mode]:
        image = pixel if isinstance(pixel, Image.Image) else Image.new(mode, (2, 2), pixel)
        got = picture.to_rgb(image)
        assert got.mode == "RGB"
        assert (np.asarray(got) == expected).all(), (pixel, got.getpixel((0, 0)))


TRNS, PLTE = b"tRNS", b"PLTE"


@pytest.mark.parametrize(
    ("bits", "colour", "row", "chunks", "expected"),
    [
        (1, 0, b"\x40", (), [0, 255]),
        (2, 0, b"\x60", (), [85, 170]),
        (4, 0, b"\x3c", (), [51, 204]),
        (8, 0, b"\x03\xc8", (), [3, 200]),
        (16, 0, b"\x03\x03\xff\xff", (), [3, 255]),
        (1, 0, b"\x40", ((TRNS, b"\0\0"),), [255, 255]),
        (2, 0, b"\x60", ((TRNS, b"\0\1"),), [255, 170]),
        (4, 0, b"\x3c", ((TRNS, b"\0\3"),), [255, 204]),
        (8, 0, b"\x03\xc8", ((TRNS, b"\0\3"),), [255, 200]),
        (16, 0, b"\x03\x03\x03\x04", ((TRNS, b"\3\3"),), [255, 3]),
        (8, 2, b"\1\2\3\7\0\7", (), [(1, 2, 3), (7, 0, 7)]),
        (8, 2, b"\1\2\3\7\0\7", ((TRNS, b"\0\1\0\2\0\3"),), [255, (7, 0, 7)]),
        (16, 2, b"\1\1\2\2\3\3\7\7\0\0\7\7", (), [(1, 2, 3), (7, 0, 7)]),
        (1, 3, b"\x40", ((PLTE, b"\1\2\3\7\0\7"),), [(1, 2, 3), (7, 0, 7)]),
        (2, 3, b"\x40", ((PLTE, b"\1\2\3\7\0\7"),), [(7, 0, 7), (1, 2, 3)]),
        (4, 3, b"\x10", ((PLTE, b"\1\2\3\7\0\7"),), [(7, 0, 7), (1, 2, 3)]),
        (8, 3, b"\1\0", ((PLTE, b"\1\2\3\7\0\7"), (TRNS, b"\xff\0")), [255, (1, 2, 3)]),
        (8, 3, b"\1\0", ((PLTE, b"\1\2\3\xff\0\0"), (TRNS, b"\xff\x33")), [(255, 204, 204), (1, 2, 3)]),
        (8, 4, b"\x64\x33\7\xff", (), [224, 7]),
        (16, 4, b"\x64\x64\x33\x33\7\7\xff\xff", (), [224, 7]),
        (8, 6, b"\xff\0\0\x33\1\2\3\xff", (), [(255, 204, 204), (1, 2, 3)]),
        (16, 6, b"\xff\xff\0\0\0\0\x33\x33\1\1\2\2\3\3\xff\xff", (), [(255, 204, 204), (1, 2, 3)]),
    ],
)
def test_every_kind_of_png(bits, colour, row, chunks, expected):
    data = png(2, 1, bits, colour, [row], *chunks)
    wanted = np.stack([np.broadcast_to(np.array(x), 3) for x in expected])[None]
    assert np.array_equal(picture.decode(data), wanted)
    assert picture.look(data)[:2] == (2, 1)


def test_a_transparent_colour_of_16_bits_is_refused():
    with pytest.raises(OSError, match="16 bits and a transparent colour"):
        picture.decode(png(1, 1, 16, 2, [b"\1\1\2\2\3\3"], (TRNS, b"\1\1\2\2\3\3")))


@pytest.mark.parametrize(
    ("bits", "photometric", "data", "expected"),
    [
        ((8,), 0, b"\0\xff", [255, 0]),
        ((8,), 1, b"\0\xff", [0, 255]),
        ((12,), 1, b"\0\0\xff\xff", [0, None]),
        ((16,), 1, b"\0\0\xff\xff", [0, 255]),
        ((16,), 0, b"\0\0\xff\xff", [255, 0]),
        ((8, 8, 8), 2, b"\1\2\3\7\0\7", [(1, 2, 3), (7, 0, 7)]),
        ((16, 16, 16), 2, b"\1\1\2\2\3\3\7\7\0\0\7\7", [(1, 2, 3), (7, 0, 7)]),
        ((8, 8, 8, 8), 5, b"\0\0\0\0\0\xff\xff\0", [255, (255, 0, 0)]),
    ],
)
def test_every_kind_of_tiff(bits, photometric, data, expected):
    if bits == (12,):
        data, expected = b"\x00\x0f\xff", [0, 255]
    got = picture.decode(tiff(2, 1, bits, photometric, data))
    assert np.array_equal(got, np.stack([np.broadcast_to(np.array(x), 3) for x in expected])[None])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(Image.new("I", (2, 2), 1), "tiff"), "32 bits or signed, and nothing says which value is white"),
        (encoded(Image.new("F", (2, 2), 1), "tiff"), "floating point, and nothing says which value is white"),
        (encoded(Image.new("F", (2, 2), 1), "ppm"), "floating point"),
        (encoded(Image.new("L", (2, 2), 1), "im"), "not a picture, or damaged: expected one of AVIF, BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a picture, or damaged"),
        (b"", "not a picture, or damaged"),
    ],
)
def test_what_is_not_read_is_refused_by_name(data, message):
    with pytest.raises(OSError, match=f"^my picture .*{message}") as error:
        picture.decode(data, name="my picture")
    assert "\n" not in str(error.value)


def test_grey_of_any_maximum_in_a_pgm():
    for most in (1, 15, 255, 1000, 65535):
        values = struct.pack(">HH", 0, most) if most > 255 else bytes([0, most])
        assert (picture.decode(b"P5\n2 1\n%d\n" % most + values) == [[[0] * 3, [255] * 3]]).all()


LOSSLESS = {"png": {}, "tiff": {}, "bmp": {}, "webp": {"lossless": True}, "ppm": {}, "qoi": {}, "gif": {}, "ico": {}}


@pytest.mark.parametrize("form", [*LOSSLESS, "jpeg", "avif", "jpeg2000"])
def test_every_format(form):
    if form.upper() not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {form}")
    pixels = np.repeat(np.repeat(np.array([[[200, 30, 40], [20, 180, 60]]], np.uint8), 16, 0), 8, 1)
    options = {"bitmap_format": "png", "sizes": [(16, 16)]} if form == "ico" else LOSSLESS.get(form, {"quality": 100})
    got = picture.decode(encoded(Image.fromarray(pixels), form, **({} if form == "jpeg2000" else options)))
    if form in LOSSLESS or form == "jpeg2000":
        assert np.array_equal(got, pixels)
    else:
        assert abs(got[:, [2, -3]].astype(int) - pixels[:, [2, -3]]).max() <= 3  # away from the edge of colours


TURNS = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: np.rot90,
    9: lambda x: x,  # no such orientation
}


@pytest.mark.parametrize("form", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_pixels_and_size_are_turned_as_exif_says(form, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), form, exif=exif, **({"lossless": True} if form == "webp" else {}))
    got = picture.decode(data)
    assert np.array_equal(got, TURNS[orientation](pixels))
    assert picture.look(data)[:2] == got.shape[1::-1]


@pytest.mark.parametrize(("form", "options"), [("gif", {}), ("webp", {"lossless": True}), ("png", {}), ("tiff", {})])
def test_of_several_pictures_the_first_is_taken(form, options):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((200, 30, 40), (20, 180, 60))]
    several = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (picture.decode(several) == (200, 30, 40)).all()
    assert picture.look(several).several
    assert not picture.look(encoded(frames[0], form, **options)).several


def test_the_header_says_what_is_grey_and_transparent():
    for mode, grey, transparent in (
        ("L", True, False), ("1", True, False), ("I;16", True, False), ("LA", True, True), ("RGB", False, False),
        ("RGBA", False, True), ("P", False, False),
    ):  # fmt: skip
        seen = picture.look(encoded(Image.new(mode, (3, 2))))
        assert (seen.width, seen.height, seen.grey, seen.transparent) == (3, 2, grey, transparent), mode


@pytest.mark.parametrize(("width", "height"), [(12000, 12000), (60000, 60000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("read", [picture.decode, picture.look])
def test_a_small_file_of_many_pixels_is_refused_before_it_is_read(tmp_path, read, width, height):
    (tmp_path / "bomb.png").write_bytes(png(width, height, 1, 0, [b"\0" * 1500]))
    with pytest.raises(OSError, match=r"bomb\.png has more than 134,217,728 pixels, the most that are read: scale"):
        read(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_kind_of_damage_is_an_oserror_of_one_line(tmp_path):
    """Bytes changed or cut at random: Pillow raises a dozen types of errors for these, the caller sees one."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    messages = []
    for form in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "qoi", "jpeg2000", "ico"):
        whole = encoded(pixels, form, **({"exif": exif} if form in ("png", "jpeg", "webp", "tiff") else {}))
        for trial in range(40):
            damaged = bytearray(whole)
            for _ in range(3):
                damaged[rng.integers(min(len(whole), 120))] = rng.integers(256)
            for read in (lambda data: picture.decode(data, 8), picture.look):
                try:
                    read(bytes(damaged if trial % 2 else damaged[: rng.integers(len(whole))]))
                except OSError as error:
                    messages.append(str(error))
    assert len(messages) > 200
    assert all("\n" not in message and message.startswith("a picture ") for message in messages)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"a\.png is not a picture, or damaged: expected one of"):
        picture.decode(tmp_path / "a.png", 8)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "bmp", "tiff", "gif", "ppm"])
def test_a_picture_cut_off_is_refused(form):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)), form)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(OSError, match="a picture"):
            picture.decode(whole[: int(part * len(whole))])


def test_no_such_file_is_said_by_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        picture.decode(tmp_path / "gone.png")


def test_decoded_pictures_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        picture.decode(encoded(Image.new("RGB", (4, 4))), 4)[0] = 1
