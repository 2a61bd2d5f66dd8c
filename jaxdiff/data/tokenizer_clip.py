"""CLIP's byte-pair tokenizer: reads vocab.json and merges.txt, or tokenizer.json, and writes the former.

Text is normalised (NFC, runs of white space to one space, lower case letter by letter) and split into English
contractions, runs of letters, single digits, and runs of other signs. Each piece is a sequence of bytes, written as one
printable letter each, the last with `</w>`; adjacent parts are merged, the pair earliest in the list of merges first.

It gives what transformers' CLIPTokenizer (version 5) gives. Older ones clean text with ftfy where that is installed
(repairs mis-decoded text, straightens quotes) and otherwise with BERT's basic tokenizer (drops control signs, puts
spaces around Chinese characters); OpenAI's own uses ftfy and unescapes HTML. Ordinary captions come out alike.

Source: Radford et al. 2021, arXiv 2103.00020, section 2.4, and its released code.
"""

import dataclasses
import functools
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

START, END = "<|startoftext|>", "<|endoftext|>"
_WHOLE = (START, END, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_SPACES = frozenset([*"\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000", *map(chr, range(0x2000, 0x200B))])
_SPACE_RUN = re.compile("[" + "".join(sorted(_SPACES)) + "]+")


@dataclass(frozen=True)
class ClipTokenizer:
    """A vocabulary.

    Attributes:
      ids: id of each token.
      merges: pairs of tokens, earliest first.
      pad: the token after the end (`!` in Stable Diffusion 2 and SDXL's second encoder; elsewhere the end token).
      added: words with ids of their own, found in the text as they are written (textual inversion's, often several).
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
        """int32 [length]: start, the text, end, padding. A text too long is cut as `cut` tells; start and end stay."""
        ids = [*self._special[START], *(i for i, _ in self._pieces(text, length)), *self._special[END]]
        return np.array(ids + [self._pad_id] * (length - len(ids)), np.int32)

    def tokens(self, text: str) -> list[int]:
        """The ids of a text of any length, without start, end and padding."""
        return [i for i, _ in self._pieces(text, None)]

    def cut(self, text: str, length: int = 77) -> tuple[str, str]:
        """What `encode(text, length)` keeps and what it cuts off ('' if all fits), as the tokenizer writes it."""
        pieces = list(self._pieces(text, None))
        room = _room(length)
        return _spell(piece for _, piece in pieces[:room]), _spell(piece for _, piece in pieces[room:])

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(*self.ids.values(), *(i for ids in self.added.values() for i in ids), 0) + 1

    def with_word(self, word: str, count: int) -> "ClipTokenizer":
        """The tokenizer that knows one more word, of `count` new ids.

        Raises:
          ValueError: if it knows the word already.
        """
        if word in self.added or word in self.ids:
            raise ValueError(f"the tokenizer knows {word!r} already: choose another word")
        return dataclasses.replace(self, added={**self.added, word: tuple(range(self.size, self.size + count))})

    @functools.cached_property
    def _special(self) -> dict[str, tuple[int, ...]]:
        return {**{name: (self.ids[name],) for name in (START, END) if name in self.ids}, **self.added}

    @functools.cached_property
    def _pad_id(self) -> int:
        return self.added[self.pad][0] if self.pad in self.added else self.ids[self.pad]

    @functools.cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return re.compile(
            "(" + "|".join(re.escape(name) for name in sorted(self._special, key=len, reverse=True)) + ")"
        )

    def _pieces(self, text: str, length: int | None) -> Iterator[tuple[int, str]]:
        """Pairs of id and token, at most `length` - 2 of them."""
        return itertools.islice(self._all_pieces(text), None if length is None else _room(length))

    def _all_pieces(self, text: str) -> Iterator[tuple[int, str]]:
        for part in self._special_pattern.split(text):
            if part in self._special:
                yield from ((i, f"{part}</w>" if not n else "") for n, i in enumerate(self._special[part]))
                continue
            for word in words(part):
                yield from self._encode_word(word)

    @functools.cached_property
    def _encode_word(self) -> Callable[[str], list[tuple[int, str]]]:
        rank = {pair: n for n, pair in enumerate(self.merges)}
        unknown = self._special[END][0]

        @functools.lru_cache(2**16)
        def encode_word(word: str) -> list[tuple[int, str]]:
            parts = [_LETTER[b] for b in word.encode(errors="replace")]
            parts[-1] += "</w>"
            while len(parts) > 1:
                best, at = min((rank.get(pair, len(rank)), i) for i, pair in enumerate(itertools.pairwise(parts)))
                if best == len(rank):
                    break
                parts[at : at + 2] = ["".join(parts[at : at + 2])]
            return [(self.ids.get(part, unknown), part) for part in parts]

        return encode_word


def words(text: str) -> Iterator[str]:
    """The pieces of a text that are encoded by themselves."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(letter.lower() for letter in _SPACE_RUN.sub(" ", text))  # 'ΣΑΣ' becomes 'σασ', not 'σας'
    start = 0
    while start < len(text):
        whole = next((w for w in _WHOLE if text.startswith(w, start)), None)
        kind, end = _kind(text[start]), start + 1
        if whole:
            end = start + len(whole)
        elif kind in "LO":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if whole in (START, END):  # lower case made it look like one; the reference splits it by kind once more
            yield from ("<|", whole[2:-2], "|>")
        elif kind != "Z":
            yield text[start:end]
        start = end


def _kind(letter: str) -> str:
    """L for letters, N for numbers, Z for white space, O for others."""
    if letter in _SPACES:
        return "Z"
    category = unicodedata.category(letter)[0]
    return category if category in "LN" else "O"


def _letters() -> list[str]:
    """A printable letter for each byte: itself where it is printable, else one from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


_LETTER = _letters()
_BYTE = {letter: b for b, letter in enumerate(_LETTER)}


def _spell(parts: Iterator[str]) -> str:
    text = "".join(parts).replace("</w>", " ").strip()
    return b"".join(bytes([_BYTE[c]]) if c in _BYTE else c.encode() for c in text).decode(errors="ignore")


def _room(length: int) -> int:
    if length < 2:
        raise ValueError(f"length is {length}: expected at least 2, for the start and the end")
    return length - 2


def read(path: Path | str) -> ClipTokenizer:
    """The tokenizer of a directory with vocab.json and merges.txt, or tokenizer.json, as transformers writes them.

    Raises:
      FileNotFoundError: if the directory has neither.
      ValueError: if the files hold no CLIP vocabulary, or no merges.
    """
    path = Path(path)
    added: dict[str, tuple[int, ...]] = {}
    merges: Any
    if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        ids = _ids(path / "vocab.json", _json(path / "vocab.json"))
        lines = _text(path / "merges.txt").splitlines()
        merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        if (path / "added_tokens.json").is_file():
            added = _joined(_ids(path / "added_tokens.json", _json(path / "added_tokens.json")))
    elif (path / "tokenizer.json").is_file():
        saved = _json(path / "tokenizer.json")
        model, more = saved.get("model"), saved.get("added_tokens", [])
        if not isinstance(model, dict) or not isinstance(model.get("merges"), list) or not isinstance(more, list):
            raise ValueError(f"{path / 'tokenizer.json'} holds no byte pairs: expected a model with vocab and merges")
        ids = _ids(path / "tokenizer.json", model.get("vocab"))
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        tokens = [token if isinstance(token, dict) else {} for token in more]
        added = _joined(_ids(path / "tokenizer.json", {token.get("content"): token.get("id") for token in tokens}))
    else:
        raise FileNotFoundError(f"no tokenizer in {path}: expected vocab.json and merges.txt, or tokenizer.json")
    is_pair = lambda pair: isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
    if wrong := next((pair for pair in merges if not is_pair(pair)), None):
        raise ValueError(f"{path}: a merge joins two tokens, got {str(wrong)[:80]}")
    if not merges:
        raise ValueError(
            f"{path} has a vocabulary but no merges, so words would fall to letters: copy merges.txt there"
        )
    return ClipTokenizer(ids, tuple((a, b) for a, b in merges), _pad(path), added)


def _joined(tokens: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Words with all their ids: the second id of `word` is that of the token `word_1`, as diffusers names it."""
    rest = lambda word: itertools.takewhile(tokens.__contains__, (f"{word}_{n}" for n in itertools.count(1)))
    later = {token for word in tokens for token in rest(word)}
    return {word: (i, *(tokens[token] for token in rest(word))) for word, i in tokens.items() if word not in later}


def write(tokenizer: ClipTokenizer, path: Path | str, length: int = 77) -> None:
    """The directory that `read` and transformers read; `length`: tokens that the text encoder takes."""
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


def _pad(path: Path) -> str:
    """The token that pads: what special_tokens_map.json or tokenizer_config.json says, else the end token."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        token = _json(path / name).get("pad_token") if (path / name).is_file() else None
        if token:
            token = token.get("content") if isinstance(token, dict) else token
            if not isinstance(token, str):
                raise ValueError(f"{path / name}: pad_token is {str(token)[:80]}: expected a word")
            return token
    return END


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def _ids(path: Path, value: Any) -> dict[str, int]:
    """The ids of tokens, checked: an embedding's row is looked up by each."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{path} has no vocabulary: expected an object of tokens and their ids")
    for token, i in value.items():
        if not isinstance(token, str) or not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < 2**31:
            raise ValueError(f"{path}: token {str(token)[:80]!r} has the id {str(i)[:80]}: expected a whole number")
    return value
