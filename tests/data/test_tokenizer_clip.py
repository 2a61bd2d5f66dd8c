import contextlib
import dataclasses
import json
import random

import numpy as np
import pytest

from jaxdiff.data import tokenizer_clip
from jaxdiff.data.clip_words import LETTER
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


def test_odd_text_agrees_with_the_reference(folder, pytestconfig):
    """Random letters of all planes, control characters, runs of thousands, and what only looks like a special token."""
    odd = np.load(pytestconfig.rootpath / "tests" / "reference" / "sd_tokenizer_odd.npz")
    tokenizer = tokenizer_clip.read(folder)
    start, end = tokenizer.ids[START], tokenizer.ids[END]
    texts, rows = json.loads(bytes(odd["texts"])), np.split(odd["ids"], np.cumsum(odd["lengths"])[:-1])
    assert len(texts) == 400
    for text, row in zip(texts, rows, strict=True):
        assert [start, *tokenizer.tokens(text), end] == row.tolist(), repr(text[:100])


def test_any_text_is_read(folder):
    """Letters without a meaning, halves of letters, a word of a million bytes: whatever a caption file may hold."""
    tokenizer = tokenizer_clip.read(folder).with_word("<toy>", 2)
    rng = random.Random(0)
    texts = ["".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(40))) for _ in range(300)]
    for text in [*texts, "\ud800", "\udfff<TOY>", "\u0338<toy>\u0338", "<|endoftext|>\u0338", "ab" * 20_000]:
        ids = tokenizer.encode(text)
        assert ids.shape == (77,)
        assert ids.min() >= 0
        assert ids.max() < tokenizer.size
        assert "".join(tokenizer.cut(text)) is not None
    assert tokenizer.tokens("\udfff<TOY>")[-2:] == [tokenizer.size - 2, tokenizer.size - 1]


WORDS = [*LETTER, *(letter + "</w>" for letter in LETTER), "ab", "abc</w>", START, END]
SMALL = {word: n for n, word in enumerate(WORDS)}


def saved(path, vocab=None, merges=None, **more):
    """A directory with a small vocabulary, some of it replaced."""
    vocab = vocab if vocab is not None else SMALL
    merges = merges if merges is not None else "#version: 0.2\na b\nab c</w>\n"
    for name, content in {"vocab.json": vocab, "merges.txt": merges, **more}.items():
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        elif content is not ...:
            (path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "merges", ["#version: 0.2\r\na b\r\nab c</w>\r\n", "a b\nab c</w>", "\ufeff#version: 0.2\na b\nab c</w>"]
)
def test_line_ends_and_byte_order_marks(tmp_path, merges):
    tokenizer = tokenizer_clip.read(saved(tmp_path, "\ufeff" + json.dumps(SMALL), merges.encode()))
    assert tokenizer.tokens("abc") == [SMALL["abc</w>"]]


def test_added_tokens(tmp_path):
    tokenizer = tokenizer_clip.read(saved(tmp_path, **{"added_tokens.json": {"<new>": 516}}))
    assert tokenizer.tokens("abc <new> abc") == [SMALL["abc</w>"], 516, SMALL["abc</w>"]]
    assert tokenizer.size == 517


def test_special_tokens_map_comes_before_the_config(tmp_path):
    files = {"tokenizer_config.json": {"pad_token": END}, "special_tokens_map.json": {"pad_token": {"content": "ab"}}}
    assert tokenizer_clip.read(saved(tmp_path, **files)).pad == "ab"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab": ...}, "expected vocab.json and merges.txt, or tokenizer.json .merges.txt alone is there"),
        ({"merges": ...}, "expected vocab.json and merges.txt, or tokenizer.json .vocab.json alone is there"),
        ({"vocab": {}}, "vocab.json has no vocabulary"),
        ({"merges": ""}, "merges.txt has a vocabulary but no merges"),
        ({"merges": "#version: 0.2\n"}, "merges.txt has a vocabulary but no merges"),
        ({"vocab": "{"}, "vocab.json is not JSON"),
        ({"vocab": "[" * 100_000}, "vocab.json is not JSON"),
        ({"vocab": "[1]"}, "vocab.json holds a list, expected an object"),
        ({"vocab": b"\xff\xfe{"}, "vocab.json is not UTF-8 text"),
        ({"merges": b"a b\n\xff\xfe"}, "merges.txt is not UTF-8 text"),
        ({"merges": "a b\nab\n"}, "merges.txt: a merge joins two tokens, got 'ab'"),
        ({"merges": "a b\na b c\n"}, "merges.txt: a merge joins two tokens, got 'a b c'"),
        ({"merges": "a b\nab \n"}, "merges.txt: a merge joins two tokens"),
        ({"merges": "a b\nx y\n"}, "merges.txt: a merge makes 'xy', which the vocabulary lacks"),
        ({"vocab": {**SMALL, "ab": -1}}, "token 'ab' has the id -1: expected a whole number"),
        ({"vocab": {**SMALL, "ab": 1.5}}, "token 'ab' has the id 1.5"),
        ({"vocab": {**SMALL, "ab": True}}, "token 'ab' has the id True"),
        ({"vocab": {**SMALL, "ab": 2**31}}, "token 'ab' has the id 2147483648"),
        ({"vocab": {**SMALL, "ab": 0}}, "gives one id to several tokens: it has 516 tokens, 515 ids"),
        ({"vocab": {w: n for w, n in SMALL.items() if w != END}}, "it has no token '<|endoftext|>'"),
        (
            {"vocab": {**SMALL, **{f"{n}": n for n in range(600, 50_000)}}},
            "damaged: 49400 tokens of the",
        ),
        ({"added_tokens.json": [1]}, "added_tokens.json holds a list"),
        ({"added_tokens.json": {"<new>": "x"}}, "token '<new>' has the id x"),
        ({"special_tokens_map.json": {"pad_token": 3}}, "pad_token is 3: expected a string"),
        ({"special_tokens_map.json": {"pad_token": "<pad>"}}, "it has no token '<pad>'"),
        (
            {"merges": ..., "tokenizer.json": {"model": {"type": "Unigram"}}},
            "type is 'Unigram': CLIP's tokenizer has 'BPE'",
        ),
        (
            {"merges": ..., "tokenizer.json": {"model": {"vocab": SMALL, "merges": []}}},
            "tokenizer.json has a vocabulary but no merges",
        ),
        (
            {"merges": ..., "tokenizer.json": {"model": {"vocab": SMALL}}},
            "tokenizer.json: merges is None: expected a list",
        ),
        ({"merges": ..., "tokenizer.json": {}}, "tokenizer.json: model is None: expected an object"),
        (
            {"merges": ..., "tokenizer.json": {"model": {"vocab": SMALL, "merges": [["a", 1]]}}},
            "a merge joins two tokens",
        ),
        (
            {"merges": ..., "tokenizer.json": {"model": {"vocab": SMALL, "merges": ["a b"]}, "added_tokens": [3]}},
            "added_tokens is 3",
        ),
    ],
)
def test_what_is_no_tokenizer(tmp_path, files, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        tokenizer_clip.read(saved(tmp_path, **files))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_damaged_files_never_end_otherwise(tmp_path, folder):
    """A byte changed or the end cut off, at random places: read, or a ValueError."""
    rng = random.Random(1)
    whole = {name: (saved(tmp_path) / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    whole["tokenizer_config.json"] = json.dumps(
        {"pad_token": "ab", "added_tokens_decoder": {"516": {"content": "<n>"}}}
    ).encode()
    for n in range(300):
        for name, data in whole.items():
            (tmp_path / name).write_bytes(data)
        name = rng.choice([*whole])
        at = rng.randrange(len(whole[name]))
        damaged = whole[name][:at] + (bytes([rng.randrange(256)]) + whole[name][at + 1 :] if n % 2 else b"")
        (tmp_path / name).write_bytes(damaged)
        with contextlib.suppress(ValueError):
            tokenizer_clip.read(tmp_path).encode("abc <n>")


def test_what_is_written_is_read(folder, tmp_path):
    tokenizer = dataclasses.replace(tokenizer_clip.read(folder), pad="!").with_word("<toy>", 3).with_word("<bear>", 1)
    tokenizer_clip.write(tokenizer, tmp_path, 50)
    again = tokenizer_clip.read(tmp_path)
    assert again == tokenizer
    assert again.encode("a <toy>").tolist() == tokenizer.encode("a <toy>").tolist()
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 50
