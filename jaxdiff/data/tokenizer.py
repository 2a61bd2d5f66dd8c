"""A byte-pair vocabulary learned from captions.

Text is normalised (Unicode NFC, lower case, runs of white space to one space) and split into words and runs of other
signs. A word carries the space before it, the first one too, so that 'heart' is one word wherever it is. A word
is a sequence of bytes at first, so any text has an encoding. Learning merges the most frequent adjacent pair within
words, again and again (Sennrich et al. 2016, arXiv 1508.07909); encoding applies the same merges in the order learned.

Ids: 0 pads, 1 starts, 2 ends, 3 + b is the byte b, 259 + m the result of merge m.
"""

import functools
import heapq
import itertools
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from jaxdiff.data.text import read_text, write_text

PAD, START, END = 0, 1, 2
_FIRST_BYTE = 3
_FIRST_MERGE = _FIRST_BYTE + 256
_FORMAT = "jaxdiff byte pairs 1"
_WORD = re.compile(r" ?\w+| ?[^\w ]+")

Pair = tuple[int, int]


def normalise(text: str) -> str:
    """Returns what a text is to the vocabulary: NFC, lower case, single spaces, none at the ends.

    '?' for half surrogates.
    """
    lower = unicodedata.normalize("NFC", text).lower().encode(errors="replace").decode()
    return " ".join(unicodedata.normalize("NFC", lower).split())


@dataclass(frozen=True)
class BytePair:
    """A vocabulary; equal merges make equal vocabularies.

    Attributes:
      merges: pairs of ids in the order learned; merge m makes the id 259 + m.
    """

    merges: tuple[Pair, ...] = ()

    @classmethod
    def learn(cls, captions: Iterable[str], size: int) -> "BytePair":
        """Learns a vocabulary of at most `size` ids; fewer if every word has become one id.

        Of pairs equally frequent that of the smallest ids is merged first, so the result depends on the captions only
        and not on their order.

        Raises:
          ValueError: if `size` is below 259, the three special ids and the bytes.
        """
        if size < _FIRST_MERGE:
            raise ValueError(f"vocabulary size {size}: expected at least {_FIRST_MERGE}, 3 special ids and 256 bytes")
        frequency = Counter(word for caption in captions for word in _words(caption))
        words = [_bytes(word) for word in frequency]
        return cls(learn_merges(words, list(frequency.values()), _FIRST_MERGE, size - _FIRST_MERGE))

    @property
    def size(self) -> int:
        """Returns how many ids there are."""
        return _FIRST_MERGE + len(self.merges)

    def encode(self, text: str, length: int) -> np.ndarray:
        """Returns int32 [length]: start, the text, end, padding.

        A text too long is cut as `cut` tells; start and end stay.

        Raises:
          ValueError: if `length` is below 2.
        """
        ids = [START, *self._ids(text)[: _room(length)], END]
        return np.array(ids + [PAD] * (length - len(ids)), np.int32)

    def cut(self, text: str, length: int) -> tuple[str, str]:
        """Returns what `encode(text, length)` keeps and what it cuts off ('' if all fits).

        Together, `normalise(text)`.
        """
        kept = self._spell(self._ids(text)[: _room(length)]).decode(errors="ignore").removeprefix(" ")
        return kept, normalise(text)[len(kept) :]

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of ids without special ones: of `encode(text, length)`, `normalise(text)` if that fits.

        Raises:
          ValueError: if an id is not of this vocabulary.
        """
        return self._spell(ids).decode(errors="replace").removeprefix(" ")

    def to_json(self) -> str:
        """Returns the vocabulary as text, to be kept beside the checkpoints of what was trained with it."""
        return json.dumps({"format": _FORMAT, "merges": self.merges})

    def write(self, path: Path | str) -> None:
        """Writes the vocabulary to a file, whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def read(cls, path: Path | str) -> "BytePair":
        """Reads what `write` wrote.

        Raises:
          ValueError: if the file is damaged or holds no vocabulary; names it.
          FileNotFoundError: if there is none.
        """
        text = read_text(Path(path))
        try:
            return cls.from_json(text)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "BytePair":
        """Reads what `to_json` wrote.

        Raises:
          ValueError: if `text` is not a vocabulary of this format, or a merge comes twice or joins an id made later.
        """
        try:
            saved = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not a byte-pair vocabulary: not JSON ({error})") from error
        if not isinstance(saved, dict) or saved.keys() != {"format", "merges"} or not isinstance(saved["merges"], list):
            raise ValueError("not a byte-pair vocabulary: expected JSON with the fields format and merges alone")
        if saved["format"] != _FORMAT:
            raise ValueError(f"the vocabulary's format is {str(saved['format'])[:40]!r}: expected {_FORMAT!r}")
        for m, pair in enumerate(saved["merges"]):
            ids = pair if isinstance(pair, list) and len(pair) == 2 else [None]
            if not all(type(i) is int and _FIRST_BYTE <= i < _FIRST_MERGE + m for i in ids):
                expected = f"two ids from {_FIRST_BYTE} to {_FIRST_MERGE + m - 1}"
                raise ValueError(f"merge {m} joins {str(pair)[:40]}: expected {expected}")
        merges = tuple((a, b) for a, b in saved["merges"])
        if len({*merges}) < len(merges):
            raise ValueError("not a byte-pair vocabulary: a merge comes twice")
        return cls(merges)

    def _ids(self, text: str) -> list[int]:
        return [i for word in _words(text) for i in self._encode_word(word)]

    def _spell(self, ids: Iterable[SupportsIndex]) -> bytes:
        try:
            return b"".join(self._spelling[int(i)] for i in ids)
        except KeyError as error:
            raise ValueError(f"id {error} is not of this vocabulary of {self.size}") from None

    @functools.cached_property
    def _spelling(self) -> dict[int, bytes]:
        spelling = dict.fromkeys((PAD, START, END), b"") | {_FIRST_BYTE + b: bytes([b]) for b in range(256)}
        for m, (left, right) in enumerate(self.merges):
            spelling[_FIRST_MERGE + m] = spelling[left] + spelling[right]
        return spelling

    @functools.cached_property
    def _encode_word(self) -> Callable[[str], list[int]]:
        merged = {pair: _FIRST_MERGE + m for m, pair in enumerate(self.merges)}

        @functools.lru_cache(2**16)
        def encode_word(word: str) -> list[int]:
            ids = _bytes(word)
            while known := [merged[pair] for pair in _pairs(ids) if pair in merged]:
                ids = _merge(ids, self.merges[min(known) - _FIRST_MERGE], min(known))
            return ids

        return encode_word


def learn_merges(words: list[list[int]], times: list[int], first: int, most: int) -> tuple[Pair, ...]:
    """Learns at most `most` merges of words that are read so many times; merge m makes the id `first` + m.

    Of pairs equally frequent that of the smallest ids is merged first.
    """
    words = list(words)
    count: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for w, word in enumerate(words):
        for pair in _pairs(word):
            count[pair] += times[w]
            where[pair].add(w)
    heap = [(-n, pair) for pair, n in count.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < most:
        n, best = heapq.heappop(heap)
        if -n != count[best]:
            continue  # an older count of this pair
        if not n:
            break
        changed = set()
        for w in where.pop(best):
            for pair in _pairs(words[w]):
                count[pair] -= times[w]
                changed.add(pair)
            words[w] = _merge(words[w], best, first + len(merges))
            for pair in _pairs(words[w]):
                count[pair] += times[w]
                where[pair].add(w)
                changed.add(pair)
        merges.append(best)
        for pair in changed:
            heapq.heappush(heap, (-count[pair], pair))
    return tuple(merges)


def _words(text: str) -> list[str]:
    return _WORD.findall(" " + normalise(text))


def _bytes(word: str) -> list[int]:
    return [_FIRST_BYTE + b for b in word.encode()]


def _pairs(ids: list[int]) -> list[Pair]:
    return list(itertools.pairwise(ids))


def _merge(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def _room(length: int) -> int:
    if length < 2:
        raise ValueError(f"length is {length}: expected at least 2, for the start and the end")
    return length - 2
