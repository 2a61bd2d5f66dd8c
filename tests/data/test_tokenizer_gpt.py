"""GPT-2's byte pairs against GLIDE's published code, and what is refused."""

import gzip
import json

import numpy as np
import pytest
from pretrained.glide_files import ARRAYS, INDEX, write

from jaxdiff.data import tokenizer_gpt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("words")
    write(path)
    return path


@pytest.fixture(scope="module")
def words(folder):
    return tokenizer_gpt.read(folder)


def test_tokens_are_those_of_the_published_code(words):
    for caption, expected in zip(INDEX["captions"], INDEX["tokens"], strict=True):
        row = words.encode(caption, 700)
        np.testing.assert_array_equal(row[: len(expected)], expected, err_msg=caption)
        assert (row[len(expected) :] == tokenizer_gpt.PAD).all()


def test_pieces_together_are_the_text():
    for text in INDEX["captions"]:
        assert "".join(tokenizer_gpt.words(text)) == text


def test_a_long_text_is_cut_and_the_end_is_told(words):
    text = "a red heart and seven birds"
    kept, lost = words.cut(text, 6)
    assert (kept + lost).replace(" ", "") == text.replace(" ", "")
    assert lost
    np.testing.assert_array_equal(words.encode(text, 6), words.encode(text, 60)[:6])
    assert words.cut("a", 6) == ("a", "")


def test_half_surrogates_have_an_encoding(words):
    assert words.encode("\ud800", 4)[0] >= 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("encoder.json", b"[", "is not JSON"),
        ("encoder.json", b'{"a": "b"}', "is no vocabulary"),
        ("encoder.json", b'{"a": 1}', "lacks 255 of the 256 bytes"),
        ("encoder.json", b"\xff", "is broken"),
        ("vocab.bpe", b"#version: 0.2\n", "has no merges"),
        ("vocab.bpe", b"a b c\n", "joins no two tokens"),
        ("vocab.bpe", b"q qqq\n", "joins no two tokens"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_broken_files_are_refused(tmp_path, name, content, says, packed):
    files = {"encoder.json": bytes(ARRAYS["vocabulary"]), "vocab.bpe": bytes(ARRAYS["merges"]), name: content}
    for file, data in files.items():
        path = tmp_path / (f"{file}.gz" if packed else file)
        path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ValueError, match=says) as error:
        tokenizer_gpt.read(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_two_tokens_of_one_id_are_refused(tmp_path):
    write(tmp_path)
    ids = json.loads(bytes(ARRAYS["vocabulary"]))
    (tmp_path / "encoder.json").write_text(json.dumps({**ids, "another": 0}))
    with pytest.raises(ValueError, match="one id to several"):
        tokenizer_gpt.read(tmp_path)


def test_a_folder_without_them_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected encoder\.json and vocab\.bpe"):
        tokenizer_gpt.read(tmp_path)


def test_a_damaged_archive_is_refused(folder, tmp_path):
    write(tmp_path)
    packed = (tmp_path / "encoder.json.gz").read_bytes()
    (tmp_path / "encoder.json.gz").write_bytes(packed[:100])
    with pytest.raises(ValueError, match="is broken"):
        tokenizer_gpt.read(tmp_path)
