"""Sets of pictures: what is converted is said, and what cannot be compared is refused."""

import types

import numpy as np
import pytest
from PIL import Image

from jaxdiff.evaluation.config import EvaluateConfig
from jaxdiff.evaluation.pictures import Pictures, first, folder
from jaxdiff.evaluation.run import _prompts_for, _reference, _shuffled


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
    with pytest.raises(OSError, match=r"broken\.png is not a picture, or damaged"):
        folder(place)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_have_the_size_that_exif_turns_them_to(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.jpg", "b.png", "c.tif", "d.webp"):
        Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(tmp_path / name, exif=exif)
    pictures = folder(tmp_path)
    assert pictures.shape == ((4, 6) if orientation < 5 else (6, 4))
    assert next(pictures.batches(4)).shape == (4, *pictures.shape, 3)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "plain.png")
    if orientation >= 5:
        with pytest.raises(ValueError, match=r"2 sizes: 4x6 \(4\), 6x4 \(1\); bring them to one with --size"):
            folder(tmp_path)


def test_a_picture_of_too_many_pixels_is_refused(tmp_path):
    Image.new("1", (12000, 12000)).save(tmp_path / "bomb.png")
    with pytest.raises(OSError, match=r"bomb\.png has more than 134,217,728 pixels"):
        folder(tmp_path, 8)


def test_more_pixels_at_once_than_memory_holds_are_refused_before_any_is_read():
    large = Pictures("large", (4096, 4096), 9, lambda i: pytest.fail("it was read"))
    with pytest.raises(
        ValueError, match=r"16 pictures of 4096x4096 from large at once .*: lower --batch-size, or scale"
    ):
        next(large.batches(16))


def test_the_first_of_several_pictures_is_said(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert folder(tmp_path).notes == (
        f"1 of 1 pictures in {tmp_path} are the first of several in their file: the others are left out",
    )


def test_a_reference_folder_has_its_split_and_its_captions(place, tmp_path):
    assert list(folder(place).captions()) == []
    for split, count in (("train", 3), ("test", 2)):
        for i in range(count):
            (tmp_path / "own" / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(tmp_path / "own" / split / f"{i}.png")
            (tmp_path / "own" / split / f"{i}.txt").write_text(f"{split} {i}")
    reference = lambda split: _reference(EvaluateConfig(reference=str(tmp_path / "own"), split=split), 4)
    assert list(reference("train").captions()) == ["train 0", "train 1", "train 2"]
    assert list(reference("test").captions()) == ["test 0", "test 1"]
    assert list(reference("all").captions()) == ["test 0", "test 1", "train 0", "train 1", "train 2"]
    assert list(first(reference("all"), 2).captions()) == ["test 0", "test 1"]
    with pytest.raises(ValueError, match=r"data\.split is 'validation'"):
        reference("validation")
    with pytest.raises(ValueError, match=r"data\.subset is 'plain', a part of openmoji"):
        _reference(EvaluateConfig(reference=str(tmp_path / "own"), subset="plain"), 4)
    rows = "file_name,text\n1.png,one\n1.png,again\n0.png,nought\n"
    (tmp_path / "own" / "train" / "metadata.csv").write_text(rows)
    assert list(reference("train").captions()) == ["nought", "again", ""]  # of two captions the first, sorted


def test_captions_sorted_by_class_are_shuffled_the_same_each_time():
    captions = ["owl"] * 50 + ["fox"] * 50
    mixed = _shuffled(captions)
    assert sorted(mixed) == sorted(captions)
    assert 3 <= mixed[:12].count("owl") <= 9
    assert mixed == _shuffled(captions)
    assert _shuffled([]) == []


def test_classes_are_told_to_a_model_as_it_spells_them():
    told_classes = lambda *labels: types.SimpleNamespace(model=types.SimpleNamespace(labels=labels))
    assert _prompts_for(told_classes("red_fox", "owl"), ["red fox", "owl", "red_fox", "cat"]) == [
        "red_fox",
        "owl",
        "red_fox",
        "cat",
    ]
    assert _prompts_for(told_classes(), ["red fox"]) == ["red fox"]
