"""T5's tokenizer against the reference's: token for token on 2,000 captions, from both kinds of files."""

import builtins
import json

import numpy as np
import pytest

from jaxdiff.data import tokenizer_unigram

ODD = {3: "  {}\t ", 5: "{} </s> {}", 7: "{}<extra_id_3>", 11: "\ufb01ne \uff21rt {}", 13: "{}\n{}"}


@pytest.fixture(scope="module")
def file(pytestconfig):
    return np.load(pytestconfig.rootpath / "tests" / "reference" / "t5.npz")


@pytest.fixture(scope="module")
def captions(pytestconfig):
    texts = np.load(pytestconfig.rootpath / "tests" / "reference" / "sd_tokenizer.npz")["captions"]
    return [ODD.get(n % 17, "{}").format(text, text) for n, text in enumerate(json.loads(bytes(texts)))]


@pytest.fixture(scope="module", params=["spiece.model", "tokenizer.json"])
def folder(request, file, tmp_path_factory):
    path = tmp_path_factory.mktemp("t5")
    (path / request.param).write_bytes(bytes(file["json" if request.param.endswith("json") else "spiece"]))
    return path


def test_2000_captions_agree_with_the_reference(file, folder, captions):
    tokenizer = tokenizer_unigram.read(folder)
    ids, ends = file["ids"], np.cumsum(file["counts"])
    assert len(captions) == len(ends) == 2000
    for text, end, count in zip(captions, ends, file["counts"], strict=True):
        np.testing.assert_array_equal(tokenizer.encode(text, int(count)), ids[end - count : end])


def test_texts_are_cut_and_filled_up_as_the_reference_does(file, folder, captions):
    tokenizer = tokenizer_unigram.read(folder)
    rows = np.stack([tokenizer.encode(text, 9) for text in captions[:50]])
    np.testing.assert_array_equal(rows, file["padded"])


def test_what_is_cut_off_is_shown(folder):
    tokenizer = tokenizer_unigram.read(folder)
    text = "a red heart " * 30
    kept, lost = tokenizer.cut(text, 20)
    assert kept
    assert lost
    assert f"{kept} {lost}".split() == text.split() or f"{kept}{lost}".split() == text.split()
    np.testing.assert_array_equal(tokenizer.encode(kept, 20)[:15], tokenizer.encode(text, 20)[:15])
    assert tokenizer.cut("a red heart", 77) == ("a red heart", "")


def test_its_files_are_written_back(folder, tmp_path):
    tokenizer_unigram.read(folder).write(tmp_path / "again")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("tokenizer.json", b"{", "is no tokenizer of the package tokenizers"),
        ("tokenizer.json", b"[]", "is no tokenizer of the package tokenizers"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}', "is a BPE tokenizer: T5's is a Unigram"),
        ("tokenizer.json", b'{"model": {"type": "Unigram"}}', "cannot be read"),
        ("spiece.model", b"no protocol buffer", "is no model of SentencePiece"),
        ("spiece.model", b"\x0a\x05\x0a\x03abc\x12\x02\x18\x02", "is of another kind than T5's"),
        ("spiece.model", b"\x0a\x05\x0a\x03abc", "has no piece <unk>"),
        ("spiece.model", b"\x0a\x07\x0a\x05<unk>", "<pad> has the id"),
        ("spiece.model", b"\x0a\x7f\x0a", "ends at byte 3, within a field of 127"),
        ("spiece.model", b"", "is of another kind than T5's"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"tokenizer.json|spiece.model") as error:
        tokenizer_unigram.read(tmp_path)
    assert words in str(error.value)


def test_a_folder_without_one_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected tokenizer.json or spiece.model"):
        tokenizer_unigram.read(tmp_path)


def test_without_the_package_it_says_what_to_install(folder, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"pip install 'jaxdiff\[t5\]'"):
        tokenizer_unigram.read(folder)
