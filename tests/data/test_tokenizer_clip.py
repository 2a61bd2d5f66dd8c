import dataclasses
import json

import numpy as np
import pytest

from jaxdiff.data import tokenizer_clip
from jaxdiff.data.tokenizer_clip import END, START


@pytest.fixture(scope="module")
def file(pytestconfig):
    return np.load(pytestconfig.rootpath / "tests" / "reference" / "sd_tokenizer.npz")


@pytest.fixture(scope="module")
def folder(file, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    (path / "vocab.json").write_bytes(bytes(file["vocab"]))
    (path / "merges.txt").write_bytes(bytes(file["merges"]))
    return path


def test_2000_captions_agree_with_the_reference(file, folder):
    tokenizer = tokenizer_clip.read(folder)
    start, end = tokenizer.ids[START], tokenizer.ids[END]
    captions = json.loads(bytes(file["captions"]))
    rows = np.split(file["ids"], np.cumsum(file["lengths"])[:-1])
    assert len(captions) == 2000
    for caption, row in zip(captions, rows, strict=True):
        assert [start, *tokenizer.tokens(caption), end] == row.tolist(), repr(caption)
        cut = [*row[:-1][:76], end]
        assert tokenizer.encode(caption).tolist() == cut + [end] * (77 - len(cut)), repr(caption)


def test_cut_tells_what_is_not_seen(folder):
    tokenizer = tokenizer_clip.read(folder)
    kept, cut = tokenizer.cut("A red heart, 7 blue birds", 8)
    assert (kept + " " + cut).split() == ["a", "red", "heart", ",", "7", "blue", "birds"]
    assert cut
    assert tokenizer.cut("A red heart")[1] == ""


def test_tokenizer_json_is_read_too(folder, tmp_path):
    vocab = json.loads((folder / "vocab.json").read_text())
    merges = [line.split(" ") for line in (folder / "merges.txt").read_text().split("\n")[1:-1]]
    added = [{"id": vocab[name], "content": name} for name in (START, END)]
    new = {"id": len(vocab), "content": "<toy>"}
    saved = {"model": {"vocab": vocab, "merges": merges}, "added_tokens": [*added, new]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "!"}}))
    tokenizer, plain = tokenizer_clip.read(tmp_path), tokenizer_clip.read(folder)
    assert tokenizer.tokens("a red heart") == plain.tokens("a red heart")
    assert tokenizer.tokens("my <toy>s") == [*plain.tokens("my"), len(vocab), *plain.tokens("s")]
    assert tokenizer.encode("")[2:].tolist() == [vocab["!"]] * 75
    assert tokenizer.size == len(vocab) + 1


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer in"):
        tokenizer_clip.read(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(ValueError, match="is not JSON"):
        tokenizer_clip.read(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no vocabulary"):
        tokenizer_clip.read(tmp_path)


def test_what_is_written_is_read(folder, tmp_path):
    tokenizer = dataclasses.replace(tokenizer_clip.read(folder), pad="!").with_word("<toy>", 3).with_word("<bear>", 1)
    tokenizer_clip.write(tokenizer, tmp_path, 50)
    again = tokenizer_clip.read(tmp_path)
    assert again == tokenizer
    assert again.encode("a <toy>").tolist() == tokenizer.encode("a <toy>").tolist()
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 50
