"""Damage at random places of every file that data are read from: an error of one line, or the right values."""

import dataclasses
import json
import logging
import math

import numpy as np
import pytest
from PIL import Image

from jaxdiff.data import BytePair, DataConfig, labels, open_source
from jaxdiff.data.captions import find
from jaxdiff.data.config import check

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
CAPTIONS = ["a red heart", "é, blue", 'he said "go"', "three\tsquares", "x", "sun and moon"]
NAMES = [f"{i}.png" for i in range(6)]
FORMS = {
    "metadata.jsonl": "\n".join(json.dumps({"file_name": n, "text": t}) for n, t in zip(NAMES, CAPTIONS, strict=True)),
    "metadata.csv": "file_name,text\n"
    + "\n".join(f'{n},"{t.replace(chr(34), chr(34) * 2)}"' for n, t in zip(NAMES, CAPTIONS, strict=True)),
    "captions.txt": "\n".join(f"{n}\t{t}" for n, t in zip(NAMES, CAPTIONS, strict=True)),
}


@pytest.fixture
def folder(tmp_path):
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def opened(folder):
    return open_source(DataConfig(name=str(folder), split="all", size=8))


def damaged(data, rng):
    """Some bytes changed, dropped or repeated, or the end cut off."""
    kind, at = rng.integers(4), int(rng.integers(len(data)))
    end = at + int(rng.integers(1, 6))
    noise = rng.integers(0, 256, end - at, np.uint8).tobytes()
    return [data[:at] + noise + data[end:], data[:at] + data[end:], data[:end] + data[at:], data[:at]][kind]


def one_line(error):
    return "\n" not in str(error) and 10 < len(str(error)) < 1500


def test_undamaged_forms_agree(folder):
    for file, text in FORMS.items():
        (folder / file).write_text(text, encoding="utf-8")
        assert opened(folder).captions() == CAPTIONS
        (folder / file).unlink()


@pytest.mark.parametrize("file", FORMS)
def test_damaged_lists_of_captions(folder, file):
    """What is still read names real pictures, each with a text that the damage did not make unreadable."""
    rng = np.random.default_rng(1)
    refused = 0
    whole = FORMS[file].encode()
    for _ in range(100):
        (folder / file).write_bytes(data := damaged(whole, rng))
        try:
            items = find(folder).items
        except (ValueError, OSError) as error:
            refused += 1
            assert one_line(error), error  # noqa: PT017
            continue
        text = data.decode()
        for path, caption, *_ in items:
            assert path.name in NAMES
            assert "\n" not in caption
            assert caption in text or json.dumps(caption)[1:-1] in text or caption.replace('"', '""') in text
    assert refused > 20


def test_damaged_pictures_of_a_folder(folder, caplog):
    """A PNG has a checksum over all that matters: what is read is what was written, or the picture is named."""
    (folder / "metadata.jsonl").write_text(FORMS["metadata.jsonl"])
    rng = np.random.default_rng(2)
    whole = (folder / "3.png").read_bytes()
    refused = 0
    for _ in range(100):
        (folder / "3.png").write_bytes(damaged(whole, rng))
        try:
            source = opened(folder)
        except ValueError as error:
            refused += 1
            assert one_line(error), error  # noqa: PT017
            assert "1 of 6 pictures" in str(error)  # noqa: PT017
            assert "3.png" in str(error)  # noqa: PT017
            continue
        assert np.array_equal(source[3]["image"], PIXELS[3])
    assert refused > 80


def test_damaged_notes_of_the_check_are_passed_over(folder):
    (folder / "metadata.jsonl").write_text(FORMS["metadata.jsonl"])
    opened(folder)
    note = folder / ".jaxdiff-checked.json"
    whole, rng = note.read_bytes(), np.random.default_rng(3)
    junk = [b"", b"[]", b"3", b'{"format": 2, "sound": []}', b'{"format": 2, "sound": {"0.png": [1]}}', b"[" * 10**5]
    for data in (*junk, *(damaged(whole, rng) for _ in range(60))):
        note.write_bytes(data)
        source = opened(folder)
        assert len(source) == 6
        assert all(np.array_equal(source[i]["image"], PIXELS[i]) for i in range(6))


@pytest.mark.parametrize("kind", ["vocabulary", "labels"])
def test_damaged_files_of_a_run(tmp_path, kind):
    file = tmp_path / f"{kind}.file"
    names = [f"class {i}" for i in range(20)]
    vocabulary = BytePair.learn(CAPTIONS, 290)
    write, read = (
        (vocabulary.write, BytePair.read)
        if kind == "vocabulary"
        else (lambda path: labels.write(path, names), lambda path: labels.read(path, len(names)))
    )
    write(file)
    whole, rng = file.read_bytes(), np.random.default_rng(4)
    refused = 0
    for _ in range(100):
        file.write_bytes(damaged(whole, rng))
        try:
            got = read(file)
        except (ValueError, OSError) as error:
            refused += 1
            assert one_line(error), error  # noqa: PT017
            assert str(file) in str(error), error  # noqa: PT017
            continue
        if kind == "labels":
            assert len(got) == len(names)
        else:
            assert got.encode("a red heart", 30).max() < got.size
    assert refused > 30


VALUES = (None, True, 0, -1, 2**70, 0.5, 8.0, math.nan, math.inf, "", "x", "8", "\0", "train[", (), [1], {"a": 1}, b"a")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(DataConfig)])
def test_odd_values_of_every_field(folder, field, caplog):
    """Each is refused in a line that names the field, or it is of the field's own type."""
    (folder / "metadata.jsonl").write_text(FORMS["metadata.jsonl"])
    caplog.set_level(logging.ERROR)
    for value in VALUES:
        config = DataConfig(name=str(folder), split="all", size=8)
        own = type(getattr(config, field))
        object.__setattr__(config, field, value)
        try:
            check(config)
            if field != "size" or value == 8:
                open_source(config)
        except ValueError as error:
            assert one_line(error), error  # noqa: PT017
            assert f"data.{field}" in str(error), error  # noqa: PT017
        else:
            assert type(value) is own or (field == "dir" and isinstance(value, str)), (field, value)
