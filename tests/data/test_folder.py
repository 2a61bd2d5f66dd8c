import json
import logging

import numpy as np
import pytest
from PIL import Image

from jaxdiff.data import DataConfig, open_source, picture


def draw(path, value, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)


def fill(folder, count, suffix=".png"):
    for i in range(count):
        draw(folder / f"{i:03d}{suffix}", i)
        (folder / f"{i:03d}.txt").write_text(f"number {i}\n", encoding="utf-8")


def opened(folder, **options):
    return open_source(DataConfig(name=str(folder), size=8, **options))


def test_text_files_beside_pictures(tmp_path):
    fill(tmp_path, 5)
    source = opened(tmp_path)
    assert source.captions() == [f"number {i}" for i in range(5)]
    assert [source[i]["caption"] for i in range(5)] == source.captions()
    assert all((source[i]["image"] == i).all() and source[i]["label"] == 0 for i in range(5))


@pytest.mark.parametrize("key", ["text", "caption"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_metadata(tmp_path, key, suffix):
    draw(tmp_path / "b" / f"two{suffix}", 20, size=12)
    draw(tmp_path / f"one{suffix}", 10, size=6)
    draw(tmp_path / "not-listed.png", 30)
    rows = [{"file_name": f"b/two{suffix}", key: "é two"}, {"file_name": f"one{suffix}", key: "one"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    source = opened(tmp_path)
    assert source.captions() == ["é two", "one"]
    assert abs(source[0]["image"].astype(int) - 20).max() <= 2  # jpg and webp lose a little


def test_several_captions_of_one_picture(tmp_path):
    draw(tmp_path / "a.png", 1)
    rows = [{"file_name": "a.png", "text": text} for text in ("x", "y")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert opened(tmp_path).captions() == ["x", "y"]


def test_split_folders(tmp_path):
    fill(tmp_path / "train", 3)
    fill(tmp_path / "test", 2)
    assert [len(opened(tmp_path, split=split)) for split in ("train", "test", "all")] == [3, 2, 5]
    with pytest.raises(ValueError, match=r"data\.split is 'validation': expected a folder of that name"):
        opened(tmp_path, split="validation")


def test_a_flat_folder_has_no_test_split(tmp_path):
    fill(tmp_path, 2)
    with pytest.raises(ValueError, match=r"data\.split is 'test'"):
        opened(tmp_path, split="test")


def test_a_damaged_picture_is_named_skipped_and_counted(tmp_path, caplog):
    fill(tmp_path, 100)
    whole = (tmp_path / "007.png").read_bytes()
    (tmp_path / "007.png").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        source = opened(tmp_path)
    assert len(source) == 99
    assert "number 7" not in source.captions()
    assert "1 of 100 pictures" in caplog.text
    assert "007.png" in caplog.text


def test_more_than_one_percent_damaged_stops(tmp_path):
    fill(tmp_path, 100)
    for i in (7, 42):
        (tmp_path / f"{i:03d}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"(?s)2 of 100 pictures .* more than 1%.*007\.png.*042\.png"):
        opened(tmp_path)


def test_the_check_is_remembered_until_a_picture_changes(tmp_path, monkeypatch):
    fill(tmp_path, 100)
    opened(tmp_path)
    decoded = []
    monkeypatch.setattr(picture, "decode", lambda path, size: decoded.append(path.name))
    opened(tmp_path)
    assert decoded == []
    draw(tmp_path / "003.png", 77, size=9)
    opened(tmp_path)
    assert decoded == ["003.png"]


def test_many_damaged_pictures_are_one_line(tmp_path):
    fill(tmp_path, 40)
    for i in range(30):
        (tmp_path / f"{i:03d}.png").write_bytes(b"no picture")
    with pytest.raises(
        ValueError, match=r"30 of 40 pictures .*000\.png is not a picture.*009\.png.*; \.\.\.$"
    ) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)
    assert "010.png" not in str(error.value)


def test_a_picture_of_too_many_pixels_is_named(tmp_path):
    fill(tmp_path, 1)
    Image.new("1", (12000, 12000)).save(tmp_path / "000.png")
    with pytest.raises(ValueError, match=r"1 of 1 pictures .*000\.png has more than 134,217,728 pixels"):
        opened(tmp_path)


def test_classes_of_a_folder_are_labels(tmp_path):
    for i, name in enumerate(("train/owl/a.png", "train/red_fox/b.png", "test/red_fox/c.png")):
        draw(tmp_path / name, 10 * i)
    train, test = (opened(tmp_path, split=split) for split in ("train", "test"))
    assert train.labels == test.labels == ("owl", "red_fox")
    assert [(train[i]["label"], train[i]["caption"], int(train[i]["image"][0, 0, 0])) for i in range(2)] == [
        (0, "owl", 0),
        (1, "red fox", 10),
    ]
    assert [(test[0]["label"], int(test[0]["image"][0, 0, 0]))] == [(1, 20)]


@pytest.mark.parametrize("times", [1, 2])  # the second opening knows from its notes
def test_animations_and_what_is_left_out_are_said(tmp_path, caplog, times):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    for name in ("a.txt", "b.txt", "c.heic"):
        (tmp_path / name).write_text("")
    for _ in range(times):
        caplog.clear()
        source = opened(tmp_path)
    assert (source[0]["image"] == (255, 0, 0)).all()
    said = [record.getMessage() for record in caplog.records]
    assert any(f"files in {tmp_path} that are left out: 1 .heic" in text for text in said)
    assert f"texts in {tmp_path} that have no picture: b.txt" in said
    assert f"empty captions in {tmp_path} (1 of 1): a.gif" in said
    assert f"files in {tmp_path} that hold several pictures, of which the first is taken: a.gif" in said


def test_a_damaged_picture_is_found_again_at_the_next_opening(tmp_path):
    fill(tmp_path, 100)
    (tmp_path / "007.png").write_bytes(b"no picture")
    assert [len(opened(tmp_path)) for _ in range(2)] == [99, 99]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 1: expected"),
        ('{"text": "a"}', "line 1: expected"),
        ('{"file_name": "a.png"}', "line 1: expected"),
        ('{"file_name": "a.png", "text": 3}', "expected a caption in quotes, got 3"),
        ('{"file_name": "gone.png", "text": "a"}', r"there is no picture .*gone\.png"),
    ],
)
def test_bad_metadata_is_named(tmp_path, line, message):
    draw(tmp_path / "a.png", 1)
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_pictures_without_captions_are_named(tmp_path):
    fill(tmp_path, 3)
    (tmp_path / "001.txt").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 pictures in .* have no caption: 001\.png; expected a metadata"):
        opened(tmp_path)


def test_captions_in_another_encoding_are_named(tmp_path):
    fill(tmp_path, 3)
    (tmp_path / "001.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"001\.txt is not UTF-8"):
        opened(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no picture in data\.name"):
        opened(tmp_path)
