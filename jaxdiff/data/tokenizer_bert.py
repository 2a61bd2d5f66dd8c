"""BERT's WordPiece tokenizer, in small letters without accents, as latent diffusion's text-to-image model reads.

A text loses control characters and accents, and is split at white space, at each sign of punctuation and each Chinese
character. A word is cut into the longest pieces of the vocabulary, from its beginning; all but the first begin with
`##`. One that cannot be cut so, or of over 100 letters, is unknown.

Source: Devlin et al. 2019, arXiv 1810.04805; Wu et al. 2016, arXiv 1609.08144; as the library tokenizers has it.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxdiff.data.clip_words import kind

PAD, START, END, UNKNOWN, MASK = "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"
SPECIAL = (PAD, START, END, UNKNOWN, MASK)
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
_CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
_LONGEST = 100


@dataclass(frozen=True)
class WordPiece:
    """A vocabulary.

    Attributes:
      ids: id of each token.
      length: tokens that a text becomes, as the files say; what is encoded may be shorter.
    """

    ids: Mapping[str, int]
    length: int = 77

    @property
    def size(self) -> int:
        """Returns one more than the largest id."""
        return max(self.ids.values()) + 1

    def encode(self, text: str, length: int) -> np.ndarray:
        """Returns int32 [length]: start, the text, end, padding; a text too long is cut as `cut` tells."""
        ids = [self.ids[token] for token in (START, *self._tokens(text)[: length - 2], END)]
        return np.array(ids + [self.ids[PAD]] * (length - len(ids)), np.int32)

    def cut(self, text: str, length: int) -> tuple[str, str]:
        """Returns what `encode(text, length)` keeps and what it cuts off, '' if all fits, as tokens spell it."""
        tokens = self._tokens(text)
        spelled = lambda part: " ".join(part).replace(" ##", "").removeprefix("##")
        return spelled(tokens[: length - 2]), spelled(tokens[length - 2 :])

    def write(self, path: Path) -> None:
        """Writes the folder that `read` and transformers read."""
        path.mkdir(parents=True, exist_ok=True)
        tokens = sorted(self.ids, key=self.ids.__getitem__)
        (path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
        special = {"pad_token": PAD, "cls_token": START, "sep_token": END, "unk_token": UNKNOWN, "mask_token": MASK}
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": self.length, **special}
        (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")

    def _tokens(self, text: str) -> list[str]:
        parts = _SPECIAL.split(text)
        return [
            token
            for part in parts
            for token in ([part] if part in SPECIAL else [t for word in words(part) for t in self._split_word(word)])
        ]

    @functools.cached_property
    def _split_word(self) -> Callable[[str], list[str]]:
        @functools.lru_cache(2**16)
        def split_word(word: str) -> list[str]:
            if len(word) > _LONGEST:
                return [UNKNOWN]
            pieces, start = [], 0
            while start < len(word):
                head = "##" if start else ""
                ends = range(len(word), start, -1)
                end = next((end for end in ends if head + word[start:end] in self.ids), None)
                if end is None:
                    return [UNKNOWN]
                pieces.append(head + word[start:end])
                start = end
            return pieces

        return split_word


def words(text: str) -> Iterator[str]:
    """Splits a text into the words that are cut into pieces by themselves."""
    plain = "".join(_cleaned(letter) for letter in text)
    small = "".join(letter for letter in unicodedata.normalize("NFD", plain) if unicodedata.category(letter) != "Mn")
    for word in "".join(letter.lower() for letter in small).split(" "):
        start = 0
        for n, letter in enumerate(word):
            if _is_punctuation(letter):
                yield from filter(None, (word[start:n], letter))
                start = n + 1
        if word[start:]:
            yield word[start:]


def _cleaned(letter: str) -> str:
    """Returns a letter, nothing in the place of a control character, or spaces around what is a word by itself."""
    if kind(letter) == "Z" and letter not in "\v\f\x85":
        return " "
    # what no version of Unicode that the reference has knows of is a letter like others
    if letter == "\ufffd" or unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    return f" {letter} " if any(first <= ord(letter) <= last for first, last in _CHINESE) else letter


def _is_punctuation(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "P" or (letter.isascii() and not letter.isalnum() and letter > " ")


def read(path: Path, length: int = 77) -> WordPiece:
    """Returns the tokenizer of a folder with vocab.txt.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it lacks the tokens that every text has, or has one twice.
    """
    file = path / "vocab.txt"
    if not file.is_file():
        raise FileNotFoundError(f"no tokenizer in {path}: expected vocab.txt, a token a line")
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}") from error
    tokens = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    ids = {token: n for n, token in enumerate(tokens)}
    if lost := [token for token in SPECIAL[:4] if token not in ids]:
        raise ValueError(f"{file} lacks {', '.join(lost)}: it is of another tokenizer")
    if len(ids) < len(tokens):
        raise ValueError(f"{file} has {len(tokens) - len(ids)} of its {len(tokens)} tokens twice")
    if ids[PAD] != 0:
        raise ValueError(f"{file}: {PAD} is token {ids[PAD]}: expected the first, 0")
    return WordPiece(ids, length)
