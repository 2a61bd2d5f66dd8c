"""Every form of a folder with captions or classes; what is left out is said, and what is malformed named."""

import json

import pytest
from PIL import Image

from jaxdiff.data import DataConfig, captions, open_source
from jaxdiff.data.captions import find
from jaxdiff.data.source import hints_of


def draw(path, form=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path, form)


def found(folder, **options):
    got = find(folder, **options)
    return {item.path.relative_to(folder).as_posix(): item.caption for item in got.items}, got.labels, got.notes


def write_metadata(folder, rows, encoding="utf-8", end="\n"):
    (folder / "metadata.jsonl").write_bytes(end.join(map(json.dumps, rows)).encode(encoding))


def write_csv(folder, rows, encoding="utf-8", end="\n"):
    lines = ["file_name,text", *(f'{row["file_name"]},"{row["text"]}"' for row in rows)]
    (folder / "metadata.csv").write_bytes(end.join(lines).encode(encoding))


def write_tabs(folder, rows, encoding="utf-8", end="\n"):
    (folder / "captions.txt").write_bytes(end.join(f"{r['file_name']}\t{r['text']}" for r in rows).encode(encoding))


def write_beside(folder, rows, encoding="utf-8", end="\n"):
    for row in rows:
        (folder / row["file_name"]).with_suffix(".txt").write_bytes((row["text"] + end).encode(encoding))


WRITERS = [write_metadata, write_csv, write_tabs, write_beside]
LISTS = {write_metadata: "metadata.jsonl", write_csv: "metadata.csv", write_tabs: "captions.txt"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("write", WRITERS)
def test_every_form_in_every_encoding_and_line_end(tmp_path, write, end, encoding):
    expected = {"a.png": "é, red heart", "b/c.jpg": "a blue, square", "d.e.webp": ""}
    for name in expected:
        draw(tmp_path / name)
    write(tmp_path, [{"file_name": name, "text": text} for name, text in expected.items()], encoding, end)
    got, labels, notes = found(tmp_path)
    assert got == expected
    assert labels == ()
    assert notes == [f"empty captions in {tmp_path} (1 of 3): d.e.webp"]


def test_every_suffix_is_found_in_either_case(tmp_path):
    for i, suffix in enumerate(captions.SUFFIXES):
        for name in (f"{i}{suffix}", f"{i}B{suffix.upper()}"):
            draw(tmp_path / name, "png")
        (tmp_path / f"{i}.txt").write_text("x")
        (tmp_path / f"{i}B.TXT").write_text("y")
    got, _, notes = found(tmp_path)
    assert len(got) == 2 * len(captions.SUFFIXES)
    assert notes == []


def test_captions_of_several_lines_are_joined(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("  a red \n\n heart  \n")
    assert found(tmp_path)[0] == {"a.png": "a red heart"}
    (tmp_path / "metadata.csv").write_text('width,text,file_name\n3,"a ""red""\nheart",a.png\n\n')
    assert found(tmp_path)[0] == {"a.png": 'a "red" heart'}


def test_what_is_left_out_is_said(tmp_path):
    for name in ("a.png", ".hidden.png", ".git/b.png", "._a.png"):
        draw(tmp_path / name, "png")
    for name in ("a.txt", "readme.txt", "x.heic", "y.HEIC", "z.psd", "Makefile", "notes.md"):
        (tmp_path / name).write_text("x")
    got, _, notes = found(tmp_path)
    assert got == {"a.png": "x"}
    assert "that are left out: 2 .heic, 1 .psd, 1 makefile; pictures end in" in notes[0].lower()
    assert notes[1] == f"texts in {tmp_path} that have no picture: readme.txt"
    draw(tmp_path / "b.png")
    write_metadata(tmp_path, [{"file_name": "a.png", "text": "y"}])
    assert found(tmp_path)[2][1] == f"pictures in {tmp_path} that metadata.jsonl does not name: b.png"


def test_the_folders_of_pictures_without_captions_are_classes(tmp_path):
    for name in ("train/red_fox/1.png", "train/owl/2.png", "train/owl/3.png", "test/owl/4.png", "test/bee/5.png"):
        draw(tmp_path / name)
    train, test = (find(tmp_path / split, tmp_path) for split in ("train", "test"))
    assert train.labels == test.labels == ("bee", "owl", "red_fox")  # of all splits, so that ids agree
    assert [(i.path.name, i.caption, i.label) for i in train.items] == [
        ("2.png", "owl", 1),
        ("3.png", "owl", 1),
        ("1.png", "red fox", 2),
    ]
    assert [(i.path.name, i.label) for i in test.items] == [("5.png", 0), ("4.png", 1)]
    whole = find(tmp_path)
    assert whole.labels == train.labels
    draw(tmp_path / "validation" / "6.png")  # of no class
    assert find(tmp_path / "train", tmp_path).labels == train.labels
    (tmp_path / "validation" / "6.png").unlink()
    assert len(whole.items) == 5


@pytest.mark.parametrize("write", LISTS)
def test_one_list_may_lie_above_the_splits(tmp_path, write):
    names = {"train/owl/a.png": "x", "train/fox/b.png": "y", "test/owl/c.png": "z"}
    for name in names:
        draw(tmp_path / name)
    write(tmp_path, [{"file_name": name, "text": text} for name, text in names.items()])
    for split, expected in (("train", {"fox/b.png": "y", "owl/a.png": "x"}), ("test", {"owl/c.png": "z"})):
        assert found(tmp_path / split, root=tmp_path) == (expected, (), [])


@pytest.mark.parametrize("names", [["a.png", "b/c.png"], ["train/a.png", "test/b.png"], ["a.png"]])
def test_pictures_with_neither_captions_nor_classes_are_refused(tmp_path, names):
    for name in names:
        draw(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"have no caption: .*; expected a metadata\.jsonl, .* subfolder for each class"
    ):
        find(tmp_path)


def test_two_pictures_of_one_caption_or_two_captions_of_one_picture_are_refused(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        draw(tmp_path / name)
    write_beside(tmp_path, [{"file_name": name, "text": "x"} for name in ("a.png", "b.png")])
    with pytest.raises(ValueError, match=r"share one caption: a\.jpg, a\.png; rename or remove"):
        find(tmp_path)
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.TXT").write_text("y")
    with pytest.raises(ValueError, match=r"b\.TXT and b\.txt are one caption"):
        find(tmp_path)


def test_two_lists_of_captions_are_refused(tmp_path):
    draw(tmp_path / "a.png")
    for write in (write_metadata, write_csv):
        write(tmp_path, [{"file_name": "a.png", "text": "x"}])
    with pytest.raises(ValueError, match=r"has metadata\.csv and metadata\.jsonl: keep one"):
        find(tmp_path)


def test_a_picture_called_captions_has_a_caption(tmp_path):
    draw(tmp_path / "captions.png")
    (tmp_path / "captions.txt").write_text("a heart")
    assert found(tmp_path)[0] == {"captions.png": "a heart"}


@pytest.mark.parametrize("write", LISTS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.png", r"there is no picture .*gone\.png"),
        ("../a.png", r"'\.\./a\.png' is outside the folder"),
        ("b/../../a.png", r"'b/\.\./\.\./a\.png' is outside the folder"),
        ("/etc/hostname", "'/etc/hostname' is outside the folder"),
        ("", "expected the name of a file, got ''"),
        (".", "there is no picture"),
        ("b\\c.png", "there is no picture"),
    ],
)
def test_names_that_are_no_picture_of_the_folder_are_refused(tmp_path, write, name, message):
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "a.png")
    write(tmp_path / "in", [{"file_name": "a.png", "text": "x"}, {"file_name": name, "text": "y"}])
    line = 3 if write is write_csv else 2
    with pytest.raises(ValueError, match=rf"{LISTS[write]}, line {line}: {message}"):
        find(tmp_path / "in")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metadata.jsonl", "", "metadata.jsonl names no picture"),
        ("metadata.jsonl", "\n\nnonsense", "line 3: expected {.*}, got 'nonsense'"),
        ("metadata.jsonl", "[" * 100_000, "line 1: expected"),
        ("metadata.jsonl", '"text"', "line 1: expected"),
        ("metadata.jsonl", "[1]", "line 1: expected"),
        ("metadata.jsonl", "NaN", "line 1: expected"),
        ("metadata.jsonl", '{"file_name": ["a.png"], "text": "x"}', r"expected the name of a file, got \['a\.png'\]"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": null}', "expected a caption in quotes, got None"),
        ("metadata.jsonl", '{"file_name": "a.png\\u0000", "text": "x"}', "expected the name of a file"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "\\ud83d"}', "'.*' is half of a character"),
        ("metadata.csv", "", "line 1: expected a header with file_name and text, got ''"),
        ("metadata.csv", "file_name,text\n", "metadata.csv names no picture"),
        ("metadata.csv", "name,text\na.png,x", "line 1: expected a header with file_name and text, got 'name,text'"),
        ("metadata.csv", "file_name;text\na.png;x", "line 1: expected a header"),
        ("metadata.csv", "file_name,text,text\na.png,x,y", "line 1: expected a header"),
        ("metadata.csv", "file_name,text\na.png,x\na.png,red, round\n", "line 3: 3 columns, not the header's 2"),
        ("metadata.csv", 'file_name,text\na.png,"x', "line 2: unexpected end of data"),
        ("metadata.csv", f"file_name,text\na.png,{'x' * 200_000}", "line 2: field larger than field limit"),
        ("captions.txt", "\n", "captions.txt names no picture"),
        ("captions.txt", "a.png\tx\na.png,y", "line 2: expected NAME, a tab, CAPTION, got 'a.png,y'"),
    ],
)
def test_malformed_lists_are_named_with_their_line(tmp_path, file, text, message):
    draw(tmp_path / "a.png")
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        find(tmp_path)
    assert file in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_folder_that_links_to_itself_ends(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert found(tmp_path)[0] == {"a.png": "x"}


@pytest.mark.parametrize("column", ["hint", "conditioning_image", "original_image"])
def test_a_line_names_a_picture_beside_its_own(tmp_path, column):
    for name in ("a.png", "b.png", "beside/x.png"):
        draw(tmp_path / name)
    write_metadata(
        tmp_path, [{"file_name": "a.png", "text": "a", column: "beside/x.png"}, {"file_name": "b.png", "text": "b"}]
    )
    got = find(tmp_path)
    assert [item.hint for item in got.items] == [tmp_path / "beside/x.png", None]
    assert got.notes == []  # the picture beside is none that nothing names
    write_metadata(tmp_path, [{"file_name": "a.png", "text": "a", column: "beside/y.png"}])
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 1: there is no picture .*beside/y\.png"):
        find(tmp_path)


def test_folders_say_how_often_their_pictures_come(tmp_path):
    for name in ("3_sks_toy/a.png", "1_other/b.png", "plain/c.png"):
        draw(tmp_path / name)
    got = captions.repeated(find(tmp_path).items)
    assert [(item.path.name, item.caption) for item in got] == [("b.png", "other"), *[("a.png", "sks toy")] * 3,
                                                                 ("c.png", "plain")]  # fmt: skip
    draw(tmp_path / "0_none" / "d.png")
    with pytest.raises(ValueError, match="0_none says 0 times: expected 1 or more"):
        captions.repeated(find(tmp_path).items)
    with pytest.raises(ValueError, match=r"data\.repeats is True, and no folder is called 10_NAME"):
        captions.repeated([captions.Item(tmp_path / "plain" / "c.png", "c")])


def test_repeated_pictures_of_a_folder_are_more_examples(tmp_path):
    for name in ("2_toy/a.png", "2_toy/b.png"):
        draw(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text(f"a toy, {name[-5]}")
    source = open_source(DataConfig(name=str(tmp_path), split="all", size=8, repeats=True))
    assert source.captions() == ["a toy, a"] * 2 + ["a toy, b"] * 2
    assert hints_of(source) == [None] * 4
    with pytest.raises(ValueError, match=r"data\.repeats is True, and 'synthetic' is no folder of pictures"):
        open_source(DataConfig(name="synthetic", repeats=True))
