"""Directories of DeepFloyd IF on the command line: options, pictures of one stage and of two, and back."""

import json

import numpy as np
import pytest
from PIL import Image
from pipelines import test_imagen

from jaxdiff.cli import convert, sample
from jaxdiff.data import tokenizer_unigram
from jaxdiff.pretrained.files import read_weights
from jaxdiff.pretrained.read import read_directory
from jaxdiff.pretrained.write import write_directory


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both stages; the second has no text encoder of its own."""
    path = tmp_path_factory.mktemp("if")
    (path / "words").mkdir()
    (path / "words" / "tokenizer.json").write_bytes(bytes(np.load(test_imagen.REFERENCE / "t5.npz")["json"]))
    words = tokenizer_unigram.read(path / "words")
    for stage, name in (("if one", "one"), ("if two", "two")):
        write_directory(test_imagen.bundle(words, stage), path / name)
    index = json.loads((path / "two" / "model_index.json").read_text())
    index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
    index |= {"watermarker": [None, None], "safety_checker": [None, None], "feature_extractor": [None, None]}
    (path / "two" / "model_index.json").write_text(json.dumps(index))
    return path


def test_help_shows_a_stages_own_options(folders, capsys):
    with pytest.raises(SystemExit):
        sample.main(["--model", str(folders / "one"), "--help"])
    shown = capsys.readouterr().out
    assert "--negative-prompt" in shown
    assert "--noise-level" not in shown
    assert "--chunks" not in shown


def test_a_stage_without_text_says_what_to_add(folders):
    with pytest.raises(ValueError, match="has no text_encoder, and its unet attends to a text's states"):
        sample.main(["--model", str(folders / "two"), "--help"])


def test_it_is_written_back_as_it_was(folders, tmp_path):
    convert.main(["--model", str(folders / "one"), "--out", str(tmp_path / "again")])
    for part in ("unet", "text_encoder"):
        ours, theirs = read_weights(tmp_path / "again" / part), read_weights(folders / "one" / part)
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(np.asarray(ours[name]), np.asarray(theirs[name]))
    for name in ("tokenizer/tokenizer.json", "scheduler/scheduler_config.json", "unet/config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folders / "one" / name).read_bytes()
    assert read_directory(tmp_path / "again").guidance == 7.0


def test_what_is_missing_is_named(folders, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    for name in ("unet", "scheduler", "tokenizer"):
        (folder / name).symlink_to(folders / "one" / name)
    (folder / "model_index.json").write_bytes((folders / "one" / "model_index.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"names text_encoder \(T5EncoderModel\), but that folder is missing"):
        read_directory(folder)
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "config.json").write_bytes((folders / "one/text_encoder/config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match="no weights in"):
        read_directory(folder)
    (folder / "text_encoder").rename(folder / "aside")
    (folder / "text_encoder").symlink_to(folders / "one" / "text_encoder")
    (folder / "tokenizer").unlink()
    (folder / "tokenizer").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected tokenizer.json or spiece.model"):
        read_directory(folder)


@pytest.mark.heavy
def test_pictures_of_one_stage_and_of_two(folders, tmp_path):
    """A sheet enlarges each pixel of a picture of 8x8 to 12x12, and of one of 16x16 to 6x6."""
    told = ["--prompt", "a red heart", "--num", "1", "--steps", "2"]
    sample.main(["--model", str(folders / "one"), "--out", str(tmp_path / "one.png"), *told])
    both = ["--model", str(folders / "one"), "--then", str(folders / "two"), "--out", str(tmp_path / "two.png")]
    sample.main([*both, *told, "--noise-level", "100"])
    one, two = (np.asarray(Image.open(tmp_path / name))[6:102, 6:102] for name in ("one.png", "two.png"))
    enlarged = lambda image, by: np.array_equal(image, image[::by, ::by].repeat(by, 0).repeat(by, 1))
    assert enlarged(one, 12)
    assert enlarged(two, 6)
    assert not enlarged(two, 12)
