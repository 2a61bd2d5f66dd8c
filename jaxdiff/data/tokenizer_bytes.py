"""BART's byte pairs: reads tokenizer.json, or vocab.json and merges.txt, and writes the latter.

Text is split, and its pieces are merged, as GPT-2's are (`tokenizer_gpt`). A text is <s>, its tokens, </s> and padding.

Source: Lewis et al. 2020, arXiv 1910.13461.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data.clip_words import LETTER, spell
from jaxdiff.data.text import read_text, write_text
from jaxdiff.data.tokenizer_gpt import merging, words

START, PAD, END = "<s>", "<pad>", "</s>"
_VERSION = "#version: 0.2"


@dataclass(frozen=True)
class ByteTokenizer:
    """A vocabulary.

    Attributes:
      ids: id of each token.
      merges: pairs of tokens, earliest first.
    """

    ids: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        wrong = [t for t in (START, PAD, END, *LETTER) if type(self.ids.get(t)) is not int]
        if wrong := wrong or [a + b for a, b in self.merges if a + b not in self.ids]:
            raise ValueError(
                f"the vocabulary of byte pairs has no token {wrong[0]!r}, of {len(wrong)} that are missing"
            )

    def tokens(self, text: str) -> list[int]:
        """Returns the ids of a text, without start, end and padding."""
        return [self.ids[token] for word in words(text) for token in self._split_word(word)]

    def encode(self, text: str, length: int) -> np.ndarray:
        """Returns int32 [length]: start, the text, end, padding; a text too long is cut, start and end stay."""
        ids = [self.ids[START], *self.tokens(text)[: length - 2], self.ids[END]]
        return np.array(ids + [self.ids[PAD]] * (length - len(ids)), np.int32)

    def cut(self, text: str, length: int) -> str:
        """Returns what of a text `encode` leaves out."""
        names = {i: token for token, i in self.ids.items()}
        return spell(names[i] for i in self.tokens(text)[length - 2 :]).strip()

    def write(self, folder: Path) -> None:
        """Writes vocab.json and merges.txt."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "vocab.json", json.dumps(self.ids, ensure_ascii=False))
        write_text(folder / "merges.txt", "\n".join([_VERSION, *(f"{a} {b}" for a, b in self.merges), ""]))

    @functools.cached_property
    def _split_word(self) -> Callable[[str], list[str]]:
        return merging(self.merges)


def read(folder: Path) -> ByteTokenizer:
    """Returns the tokenizer of a directory.

    Raises:
      FileNotFoundError: if it has no vocabulary.
      ValueError: if its files hold no such vocabulary; names them.
    """
    combined, vocab, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    if not combined.is_file() and not (vocab.is_file() and merges.is_file()):
        raise FileNotFoundError(f"{folder} has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt")
    path = combined if combined.is_file() else vocab
    try:
        fields = json.loads(read_text(path))
        if path is vocab:
            ids, pairs = (
                fields,
                [line for line in read_text(merges).splitlines() if line and not line.startswith("#version")],
            )
        else:
            _check(fields)
            added = {one["content"]: one["id"] for one in fields.get("added_tokens") or ()}
            ids, pairs = {**fields["model"]["vocab"], **added}, fields["model"]["merges"]
        split = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in pairs]
        if wrong := [pair for pair in split if len(pair) != 2]:
            raise ValueError(f"a merge is {wrong[0]}: expected two tokens")
        return ByteTokenizer(dict(ids), tuple((a, b) for a, b in split))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a tokenizer of GPT-2's or BART's kind: {error}") from error


def _check(fields: Any) -> None:
    """Refuses a tokenizer.json of another kind."""
    model, before = fields["model"], fields.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or before.get("type") != "ByteLevel" or fields.get("normalizer"):
        raise ValueError(
            f"expected byte pairs (BPE, ByteLevel, no normalizer), found {model.get('type')}, {before.get('type')}"
        )
    if before.get("add_prefix_space") or model.get("dropout") or model.get("end_of_word_suffix"):
        raise ValueError("add_prefix_space, dropout and end_of_word_suffix are not supported")
