"""Text files of any usual encoding and line end; files of ours are written whole or not at all."""

import os

import pytest

from jaxdiff.data import labels
from jaxdiff.data.text import listing, read_text, write_text

TEXT = "é red heart 🙂\nand more"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    (tmp_path / "a.txt").write_bytes((mark + TEXT.replace("\n", end)).encode(encoding))
    assert read_text(tmp_path / "a.txt") == TEXT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("é".encode("latin-1"), r"a\.txt is not UTF-8: byte 0 is 0xe9; save it as UTF-8"),
        (b"\xef\xbb\xbfab\xff", r"a\.txt is not UTF-8: byte 5 is 0xff"),
        (b"\xff\xfea", r"a\.txt is not UTF-16-LE: byte 2 is 0x61"),
        ("a".encode("utf-32"), r"a\.txt is UTF-32: save it as UTF-8"),
        ("a".encode("utf-16-le"), r"a\.txt holds NUL characters"),
        ("日本".encode("shift-jis"), r"a\.txt is not UTF-8"),
    ],
)
def test_other_encodings_are_refused_by_name(tmp_path, data, message):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path / "a.txt")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", TEXT)
    assert (tmp_path / "a.txt").read_bytes() == TEXT.encode()
    before = (tmp_path / "a.txt").stat().st_ino
    write_text(tmp_path / "a.txt", TEXT)
    assert (tmp_path / "a.txt").stat().st_ino != before  # another file, put in the place of the old one
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "a.txt", "other")
    assert (tmp_path / "a.txt").read_bytes() == TEXT.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_long_list_is_cut():
    assert listing(range(3)) == "0, 1, 2"
    assert listing(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_labels_are_read_as_they_were_written(tmp_path):
    labels.write(tmp_path / "labels.txt", ["red square", "blå", "x"])
    assert labels.read(tmp_path / "labels.txt", 3) == ("red square", "blå", "x")
    with pytest.raises(ValueError, match=r"labels\.txt has 3 class names, the model 4 classes: the file is cut off"):
        labels.read(tmp_path / "labels.txt", 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is damaged: expected class names, one a line, none of them empty"),
        (b"a\n\nb", "is damaged: expected class names"),
        (b"a\nb\n\n", "is damaged: expected class names"),
        (b"a\nb\na", "class names come twice: a"),
        (b"a\xff", "is not UTF-8"),
    ],
)
def test_damaged_labels_are_named(tmp_path, data, message):
    (tmp_path / "labels.txt").write_bytes(data)
    with pytest.raises(ValueError, match=rf"labels\.txt.*{message}"):
        labels.read(tmp_path / "labels.txt")


@pytest.mark.parametrize("names", [[], ["a", ""], ["a\nb"], ["a\u2028b"], ["a", "a"]])
def test_labels_that_could_not_be_read_are_not_written(tmp_path, names):
    with pytest.raises(ValueError, match="cannot write"):
        labels.write(tmp_path / "labels.txt", names)
    assert not (tmp_path / "labels.txt").exists()
