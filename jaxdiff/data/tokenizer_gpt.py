"""GPT-2's byte pairs, which GLIDE reads captions with: small letters, spaces kept, nothing before or after a text.

A text is split into contractions ('s), runs of letters, of digits and of other signs, each with a space before it
where there is one, and runs of white space. Each piece is a sequence of bytes, written as one printable letter each;
adjacent parts are merged, the pair earliest in the list of merges first.

Files as glide-text2im has them, beside a checkpoint or in a folder: encoder.json (the id of each token) and vocab.bpe
(a line of version, then a pair a line); both plain, or packed as .gz.

Sources: Radford et al. 2019 (GPT-2), section 2.2; Nichol et al. 2021, arXiv 2112.10741, and their released code.
"""

import functools
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxdiff.data.clip_words import LETTER, kind, merge, spell

FILES = ("encoder.json", "vocab.bpe")
PAD = -1
"""The id that fills a text up: no token has it."""
_CONTRACTION = re.compile("'(?:s|t|re|ve|m|ll|d)")
_PIECE = re.compile("S?(?:L+|N+|O+)|[SZ]+(?![LNO])|[SZ]+")  # over kinds of characters; S is a plain space
_LARGEST = 64 * 2**20
"""Bytes of the largest file that is unpacked; the published have 1 MB."""


@dataclass(frozen=True)
class GptTokenizer:
    """A vocabulary.

    Attributes:
      ids: id of each token.
      merges: pairs of tokens, earliest first.
    """

    ids: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Returns one more than the largest id."""
        return max(self.ids.values()) + 1

    def encode(self, text: str, length: int) -> np.ndarray:
        """Returns int32 [length]: the text, cut to `length`, and `PAD`."""
        ids = [self.ids[token] for token in self._tokens(text)][:length]
        return np.array(ids + [PAD] * (length - len(ids)), np.int32)

    def cut(self, text: str, length: int) -> tuple[str, str]:
        """Returns what `encode(text, length)` keeps and what it cuts off, '' if all fits."""
        tokens = list(self._tokens(text))
        return spell(tokens[:length]), spell(tokens[length:])

    def _tokens(self, text: str) -> Iterator[str]:
        for word in words(text.lower()):
            yield from self._split_word(word)

    @functools.cached_property
    def _split_word(self) -> Callable[[str], list[str]]:
        return merging(self.merges)


def merging(merges: Sequence[tuple[str, str]]) -> Callable[[str], list[str]]:
    """Returns the function from one of the `words` to its tokens, which keeps what it found."""
    rank = {pair: n for n, pair in enumerate(merges)}
    return functools.lru_cache(2**16)(lambda word: merge([LETTER[b] for b in word.encode(errors="replace")], rank))


def words(text: str) -> Iterator[str]:
    """Splits a text into the pieces that are encoded by themselves; together, they are the text."""
    kinds = "".join("S" if letter == " " else kind(letter) for letter in text)
    start = 0
    while start < len(text):
        match = _CONTRACTION.match(text, start) or _PIECE.match(kinds, start)
        assert match is not None  # every kind begins a piece
        yield text[start : match.end()]
        start = match.end()


def found(folder: Path) -> bool:
    """Returns whether a folder has both files, plain or packed."""
    return all((folder / name).is_file() or (folder / f"{name}.gz").is_file() for name in FILES)


def read(folder: Path) -> GptTokenizer:
    """Returns the tokenizer of a folder.

    Raises:
      FileNotFoundError: if the folder has not both files.
      ValueError: if they are broken, or do not belong together.
    """
    if not found(folder):
        raise FileNotFoundError(f"no tokenizer in {folder}: expected {' and '.join(FILES)}, each plain or with .gz")
    (file, saved), (pairs_file, lines) = (_text(folder, name) for name in FILES)
    try:
        ids = json.loads(saved)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(ids, dict) or not all(type(i) is int and 0 <= i < 2**31 for i in ids.values()):
        raise ValueError(f"{file} is no vocabulary: expected an object of tokens and their ids")
    if lost := [letter for letter in LETTER if letter not in ids]:
        raise ValueError(f"{file} lacks {len(lost)} of the 256 bytes, {lost[0]!r} for one: it is of another tokenizer")
    if len({*ids.values()}) < len(ids):
        raise ValueError(f"{file} gives one id to several tokens")
    merges = [tuple(line.split()) for line in lines.split("\n") if line and not line.startswith("#version")]
    for pair in merges:
        if len(pair) != 2 or "".join(pair) not in ids:
            raise ValueError(f"{pairs_file}: {' '.join(pair)[:60]!r} joins no two tokens to one that {file.name} has")
    if not merges:
        raise ValueError(f"{pairs_file} has no merges, so words would fall to letters")
    return GptTokenizer(ids, tuple((a, b) for a, b in merges))


def _text(folder: Path, name: str) -> tuple[Path, str]:
    """Returns a file, plain or packed, and its text."""
    path = next(path for path in (folder / name, folder / f"{name}.gz") if path.is_file())
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError(f"{path} is larger than {_LARGEST} bytes unpacked: it is no vocabulary")
        return path, data.decode()
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is broken: {error}") from error
