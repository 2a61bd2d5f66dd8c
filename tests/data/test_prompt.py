"""Weights in prompts, and prompts in chunks."""

import itertools
import pathlib
import random

import numpy as np
import pytest

from jaxdiff.data import prompt, tokenizer_clip

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    (folder / "vocab.json").write_bytes(bytes(saved["vocab"]))
    (folder / "merges.txt").write_bytes(bytes(saved["merges"]))
    return tokenizer_clip.read(folder)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a cat", [("a cat", 1)]),
        ("", []),
        ("a (red:1.5) cat", [("a ", 1), ("red", 1.5), (" cat", 1)]),
        ("(a (very:2) red:0.5) cat", [("a ", 0.5), ("very", 1), (" red", 0.5), (" cat", 1)]),
        ("a cat (asleep)", [("a cat (asleep)", 1)]),
        ("a cat :) (b:.5)", [("a cat :) ", 1), ("b", 0.5)]),
        ("time 1:30) and (open", [("time 1:30) and (open", 1)]),
        (r"\(not:1.5\) (so:1.5)", [("(not:1.5) ", 1), ("so", 1.5)]),
        ("((a) b:2)", [("(a) b", 2)]),
        ("(a:-0.5)\n\\", [("a", -0.5), ("\n\\", 1)]),
        ("(a:nan) (b:inf) (c:1e3) (d:)", [("(a:nan) (b:inf) (c:1e3) (d:)", 1)]),
        ("((((a:2):2):2):2)", [("a", 16)]),
        ("((a:2)", [("(", 1), ("a", 2)]),
        ("(a:2))", [("a", 2), (")", 1)]),
        ("(:2)b", [("b", 1)]),
        ("(a:0)", [("a", 0)]),
        ("(a: +1.5 )", [("a", 1.5)]),
        ("(a:1.5.2) (b:1,5)", [("(a:1.5.2) (b:1,5)", 1)]),
    ],
)
def test_weights_are_read(text, parts):
    assert prompt.parse(text) == parts


def test_a_plain_prompt_is_what_the_tokenizer_makes_of_it(tokenizer):
    for text in ("a red heart", "", "a very long text! " * 40):
        tokens, weights = prompt.encode(tokenizer, text)
        np.testing.assert_array_equal(tokens[0], tokenizer.encode(text))
        assert (weights == 1).all()
        assert prompt.cut(tokenizer, text) == tokenizer.cut(text)[1]


def test_weights_lie_at_their_tokens(tokenizer):
    tokens, weights = prompt.encode(tokenizer, "a (red heart:1.5) here")
    before, weighted = len(tokenizer.tokens("a ")), len(tokenizer.tokens("red heart"))
    assert weights[0].tolist() == [1.0] * (1 + before) + [1.5] * weighted + [1.0] * (76 - before - weighted)
    np.testing.assert_array_equal(tokens[0], tokenizer.encode("a red heart here"))


def test_chunks_hold_what_one_text_cannot(tokenizer):
    text = "seven birds! " * 40
    ids = tokenizer.tokens(text)
    tokens, _ = prompt.encode(tokenizer, text, chunks=2)
    assert tokens.shape == (2, 77)
    assert [*tokens[0, 1:76], *tokens[1, 1:76]] == ids[:150]
    start, end = tokenizer.encode("")[:2]
    assert (tokens[:, 0] == start).all()
    assert (tokens[:, 76] == end).all()
    enough = -(-len(ids) // 75)
    assert prompt.cut(tokenizer, text, 2)
    assert prompt.cut(tokenizer, text, enough) == ""
    np.testing.assert_array_equal(prompt.encode(tokenizer, "a", chunks=3).tokens[2], tokenizer.encode(""))
    with pytest.raises(ValueError, match="chunks is 0"):
        prompt.encode(tokenizer, "a", chunks=0)


@pytest.mark.parametrize("text", ["(a:" + "9" * 400 + ")", "(" * 200 + "a" + ":9)" * 200, "(a:-" + "9" * 60 + ")"])
def test_a_weight_beyond_float32_is_refused(tokenizer, text):
    with pytest.raises(ValueError, match="the prompt weighs a part of it by"):
        prompt.encode(tokenizer, text)


def test_any_prompt_is_read(tokenizer):
    """Random notation: parts are the prompt without it, tokens are those of the joined text, weights are finite."""
    rng = random.Random(0)
    pieces = ["(", ")", "\\(", "\\)", "\\", ":", ":1.5)", ":-.5)", ": 2 )", "cat", " ", "(a:0.5)", "\u0301", "\n", "9"]
    for n in range(500):
        text = "".join(rng.choice([*pieces, chr(rng.randrange(0x110000))]) for _ in range(rng.randrange(60)))
        parts = prompt.parse(text)
        assert all(a[1] != b[1] for a, b in itertools.pairwise(parts))
        tokens, weights = prompt.encode(tokenizer, text, chunks=1 + n % 3)
        assert np.isfinite(weights).all()
        assert tokens.shape == weights.shape == (1 + n % 3, 77)
    for long in ("(" * 50_000, ":" + "9" * 100_000, "(x" * 20_000 + ":1)" * 20_000, ": " * 50_000, "a(b:1.5)" * 10_000):
        assert prompt.parse(long)
