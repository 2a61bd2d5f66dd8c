"""CLIP's byte-pair tokenizer: reads vocab.json and merges.txt, or tokenizer.json, and writes the former.

Text is normalised (NFC, runs of white space to one space, lower case letter by letter) and split into English
contractions, runs of letters, single digits, and runs of other signs. Each piece is a sequence of bytes, written as one
printable letter each, the last with `</w>`; adjacent parts are merged, the pair earliest in the list of merges first.

It gives what transformers' CLIPTokenizer (version 5) gives. Older ones clean text with ftfy where that is installed
(repairs mis-decoded text, straightens quotes) and otherwise with BERT's basic tokenizer (drops control signs, puts
spaces around Chinese characters); OpenAI's own uses ftfy and unescapes HTML. Ordinary captions come out alike.

Added words (textual inversion's) are found whatever their case, and only where no letter or digit continues them: with
a word `art`, `party` stays what it is. (transformers finds them in other words too; AUTOMATIC1111's web UI does not.)

Source: Radford et al. 2021, arXiv 2103.00020, section 2.4, and its released code.
"""

import dataclasses
import functools
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxdiff.data import clip_files
from jaxdiff.data.clip_words import END, LETTER, START, letters, merge, spell, words
from jaxdiff.data.tokenizer import learn_merges

_SPECIAL = re.compile(f"({re.escape(START)}|{re.escape(END)})")


@dataclass(frozen=True)
class ClipTokenizer:
    """A vocabulary.

    Attributes:
      ids: id of each token.
      merges: pairs of tokens, earliest first.
      pad: the token after the end (`!` in Stable Diffusion 2 and SDXL's second encoder; elsewhere the end token).
      added: words with ids of their own, often several (textual inversion's).
    """

    ids: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    pad: str = END
    added: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (START, END, self.pad):
            if name not in self.ids and name not in self.added:
                raise ValueError(f"CLIP vocabulary: it has no token {name!r}")

    def encode(self, text: str, length: int = 77) -> np.ndarray:
        """Returns int32 [length]: start, the text, end, padding.

        A text too long is cut as `cut` tells; start and end stay.
        """
        ids = [*self._special[START], *(i for i, _ in self._pieces(text, length)), *self._special[END]]
        return np.array(ids + [self._pad_id] * (length - len(ids)), np.int32)

    def tokens(self, text: str) -> list[int]:
        """Returns the ids of a text of any length, without start, end and padding."""
        return [i for i, _ in self._pieces(text, None)]

    def cut(self, text: str, length: int = 77) -> tuple[str, str]:
        """Returns what `encode(text, length)` keeps and what it cuts off ('' if all fits), as tokens spell it."""
        pieces = list(self._pieces(text, None))
        room = _room(length)
        return spell(piece for _, piece in pieces[:room]), spell(piece for _, piece in pieces[room:])

    @property
    def size(self) -> int:
        """Returns one more than the largest id."""
        return max(*self.ids.values(), *(i for ids in self.added.values() for i in ids), 0) + 1

    def with_word(self, word: str, count: int) -> "ClipTokenizer":
        """Returns the tokenizer that knows one more word, of `count` new ids.

        Raises:
          ValueError: if the word is empty, known, or one token of the vocabulary: all prompts with it would change.
        """
        word = unicodedata.normalize("NFC", word.strip())
        if not word:
            raise ValueError("a new word for prompts needs at least one sign that is not white space")
        plain = [part for piece in words(word) for _, part in self._encode_word(piece)]
        if word in self.added or word in (START, END) or (len(plain) == 1 and plain[0] in self.ids):
            raise ValueError(f"the tokenizer knows {word!r} already: choose another word")
        return dataclasses.replace(self, added={**self.added, word: tuple(range(self.size, self.size + count))})

    @functools.cached_property
    def _special(self) -> dict[str, tuple[int, ...]]:
        """Returns the ids of start and end."""
        return {name: self.added.get(name) or (self.ids[name],) for name in (START, END)}

    @functools.cached_property
    def _pad_id(self) -> int:
        return self.added[self.pad][0] if self.pad in self.added else self.ids[self.pad]

    @functools.cached_property
    def _added_pattern(self) -> tuple[re.Pattern[str], list[str]]:
        """Returns what finds added words, the longest first and its own case before others.

        And the word of each group.
        """
        found = itertools.product(self.added.keys() - self._special, (":", "i:"))
        order = sorted(found, key=lambda entry: (-len(entry[0]), entry[1], entry[0]))
        return re.compile("|".join(f"(?{case}({_bounded(word)}))" for word, case in order)), [w for w, _ in order]

    def _pieces(self, text: str, length: int | None) -> Iterator[tuple[int, str]]:
        """Pairs of id and token, at most `length` - 2 of them."""
        return itertools.islice(self._all_pieces(text), None if length is None else _room(length))

    def _all_pieces(self, text: str) -> Iterator[tuple[int, str]]:
        for part in _SPECIAL.split(text):
            if part in self._special:
                yield self._special[part][0], f"{part}</w>"
            else:
                yield from self._plain_pieces(unicodedata.normalize("NFC", part))

    def _plain_pieces(self, text: str) -> Iterator[tuple[int, str]]:
        """Returns the pieces of a text without start and end."""
        pattern, names = self._added_pattern
        start = 0
        for match in pattern.finditer(text) if names else ():
            yield from self._vocabulary_pieces(text[start : match.start()])
            name = names[(match.lastindex or 1) - 1]
            yield from ((i, f"{name}</w>" if not n else "") for n, i in enumerate(self.added[name]))
            start = match.end()
        yield from self._vocabulary_pieces(text[start:])

    def _vocabulary_pieces(self, text: str) -> Iterator[tuple[int, str]]:
        for word in words(text):
            yield from self._encode_word(word)

    @functools.cached_property
    def _encode_word(self) -> Callable[[str], list[tuple[int, str]]]:
        rank = {pair: n for n, pair in enumerate(self.merges)}
        unknown = self._special[END][0]

        @functools.lru_cache(2**16)
        def encode_word(word: str) -> list[tuple[int, str]]:
            return [(self.ids.get(part, unknown), part) for part in merge(letters(word), rank)]

        return encode_word


def _bounded(word: str) -> str:
    """Returns a pattern of a word that no letter or digit continues, where it begins or ends with one."""
    start, end = ("(?<![^\\W_])" if word[0].isalnum() else ""), ("(?![^\\W_])" if word[-1].isalnum() else "")
    return start + re.escape(word) + end


def _room(length: int) -> int:
    if length < 2:
        raise ValueError(f"length is {length}: expected at least 2, for the start and the end")
    return length - 2


def learn(captions: Iterable[str], size: int) -> ClipTokenizer:
    """Learns a vocabulary of at most `size` ids, as published ones are: bytes, ends of words, merges, start, end.

    Raises:
      ValueError: if `size` has no room for the bytes, the bytes that end a word, START, END and a merge, or captions
        have nothing to merge.
    """
    parts = [*LETTER, *(f"{letter}</w>" for letter in LETTER)]
    if size < (least := len(parts) + 3):
        raise ValueError(f"vocabulary size {size}: expected at least {least}, 512 bytes, a merge, a start and an end")
    number = {part: i for i, part in enumerate(parts)}
    frequency = Counter(word for caption in captions for word in words(caption) if word not in (START, END))
    spelt = [[number[part] for part in letters(word)] for word in frequency]
    pairs = learn_merges(spelt, list(frequency.values()), len(parts), size - len(parts) - 2)
    if not pairs:
        raise ValueError("the captions have no word of two letters: expected captions to learn a vocabulary from")
    for a, b in pairs:
        parts.append(parts[a] + parts[b])
    merges = tuple((parts[a], parts[b]) for a, b in pairs)
    ids: dict[str, int] = {}
    for part in (*parts, START, END):
        ids.setdefault(part, len(ids))  # two merges may spell the same
    return ClipTokenizer(ids, merges)


def read(path: Path | str) -> ClipTokenizer:
    """Returns the tokenizer of a directory; `clip_files.read` says what it may hold and what is refused."""
    return ClipTokenizer(*clip_files.read(path))


def write(tokenizer: ClipTokenizer, path: Path | str, length: int = 77) -> None:
    """Writes the directory that `read` and transformers read; `length`: tokens that the text encoder takes."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": tokenizer.pad}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True, **special}
    merges = "\n".join(["#version: 0.2", *map(" ".join, tokenizer.merges)]) + "\n"
    (path / "merges.txt").write_text(merges, encoding="utf-8")
    files = {"vocab": tokenizer.ids, "tokenizer_config": config, "special_tokens_map": special}
    if tokenizer.added:
        files["added_tokens"] = {
            f"{word}_{n}" if n else word: i for word, ids in tokenizer.added.items() for n, i in enumerate(ids)
        }
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
