"""GLIDE's, BERT's and DALL-E mini's tokenizers: token for token on 2,000 captions (captions.py made the fixture)."""

import json
import sys
import types

import numpy as np
import pytest
from pretrained.glide_files import write
from reference.captions import captions, sums

from jaxdiff.data import dalle_text, tokenizer_bytes, tokenizer_gpt
from jaxdiff.data.tokenizer_bert import PAD, WordPiece


@pytest.fixture(scope="module")
def reference(pytestconfig):
    folder = pytestconfig.rootpath / "tests" / "reference"
    return lambda name: np.load(folder / f"{name}.npz")


@pytest.fixture(scope="module")
def theirs(reference):
    return reference("captions")


@pytest.fixture(scope="module")
def texts():
    made = captions()
    assert len(made) == 2007
    return made


def same(ours, theirs, texts):
    wrong = [text for text, a, b in zip(texts, sums(ours), theirs, strict=True) if a != b]
    assert not wrong, (len(wrong), wrong[:3])


def test_glide(theirs, texts, tmp_path):
    write(tmp_path)
    words = tokenizer_gpt.read(tmp_path)
    rows = [words.encode(text, 4 * len(text) + 2) for text in texts]
    same([row[row != tokenizer_gpt.PAD] for row in rows], theirs["glide"], texts)


def test_bert(theirs, texts):
    words = WordPiece({piece: n for n, piece in enumerate(json.loads(bytes(theirs["pieces"])))})
    # marks of a Unicode newer than what theirs was made for, which it leaves in words
    read = [n for n, text in enumerate(texts) if not set(text) & set("\u08dd\u0d3c\u1ac5\u1acb")]
    assert len(read) == len(texts) - 3
    rows = [words.encode(texts[n], 4 * len(texts[n]) + 2) for n in read]
    same([row[row != words.ids[PAD]] for row in rows], theirs["bert"][read], [texts[n] for n in read])


@pytest.fixture(scope="module")
def bart(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bart")
    (folder / "tokenizer.json").write_bytes(bytes(reference("dalle_mini")["tokenizer"]))
    return tokenizer_bytes.read(folder)


def test_bart(theirs, texts, bart):
    read = [n for n, text in enumerate(texts) if n % 5 == 0 and "<s>" not in text]  # of which theirs makes one token
    same([[0, *bart.tokens(texts[n]), 2] for n in read], theirs["bart"][read], [texts[n] for n in read])


def test_dalle_mini_reads_captions_as_the_published_code(theirs, texts, bart, monkeypatch):
    """All that need no transliteration; any other is refused by name, where nothing transliterates."""
    monkeypatch.setitem(sys.modules, "unidecode", None)
    plain, refused = {}, {}
    for n, text in enumerate(texts):
        try:
            plain[n] = dalle_text.normalise(text)
        except ValueError as error:
            refused[text] = str(error)
    assert all(any(letter >= "\u0180" for letter in text) for text in refused)
    assert all("pip install 'jaxdiff[dalle]'" in told and "\n" not in told for told in refused.values())
    kept, named = [*plain], [texts[n] for n in plain]
    same([*plain.values()], theirs["plain"][kept], named)
    same([[0, *bart.tokens(text), 2] for text in plain.values()], theirs["plain bart"][kept], named)
    assert len(kept) > 0.95 * len(texts)


def test_other_letters_are_written_by_unidecode(monkeypatch):
    stand_in = types.SimpleNamespace(unidecode=lambda text: text.replace("\u2192", "-"))
    monkeypatch.setitem(sys.modules, "unidecode", stand_in)
    assert dalle_text.normalise("A \u2192 b") == " a, b"
