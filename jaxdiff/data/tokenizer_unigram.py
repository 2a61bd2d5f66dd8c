"""T5's tokenizer: the likeliest split of a text into pieces of a unigram vocabulary, as published models keep it.

`tokenizer.json` is what the package `tokenizers` reads. `spiece.model` is SentencePiece's: a protocol buffer whose
field 1 lists pieces (1: text, 2: score), field 2 says how it was trained (3: the kind, 1 for unigram; 35: pieces of
bytes) and field 3 how texts are normalised (2: a table of characters). Both give the same ids.

Source: Kudo 2018, arXiv 1804.10959.
"""

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

START, PAD, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"
_SENTINELS = 100
FILES = ("tokenizer.json", "spiece.model")


@dataclasses.dataclass(frozen=True)
class Unigram:
    """A vocabulary that splits texts.

    Attributes:
      tokenizer: tokenizer of the package `tokenizers`.
      files: those of its directory by name, to be written again.
      end: the id of the end.
      start: that of the start; None: texts have none, and T5's are made of small letters.
      pad: that of what fills up.
    """

    tokenizer: Any = dataclasses.field(repr=False)
    files: Mapping[str, bytes] = dataclasses.field(repr=False)
    end: int = 1
    start: int | None = None
    pad: int = 0

    def encode(self, text: str, length: int) -> Int[np.ndarray, " {length}"]:
        """Ids of a text between start and end, cut to `length` or filled up."""
        before = [] if self.start is None else [self.start]
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids[: length - 1 - len(before)]
        ids = [*before, *ids, self.end]
        return np.array(ids + [self.pad] * (length - len(ids)), np.int32)

    def cut(self, text: str, length: int) -> tuple[str, str]:
        """Returns what `encode(text, length)` keeps and what it cuts off ('' if all fits)."""
        offsets, room = self.tokenizer.encode(text, add_special_tokens=False).offsets, length - (self.start is not None)
        if len(offsets) < room:
            return text, ""
        at = offsets[room - 1][0]
        return text[:at].rstrip(), text[at:].lstrip()

    def write(self, path: Path | str) -> None:
        """Writes the directory that `read` and transformers read: the files as they were."""
        Path(path).mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (Path(path) / name).write_bytes(data)


def read(path: Path | str, multilingual: bool = False) -> Unigram:
    """Returns the tokenizer of a directory that has tokenizer.json or spiece.model.

    The first counts where both are there.

    Args:
      path: the directory.
      multilingual: whether it is XLM-RoBERTa's and not T5's; tokenizer.json alone is read then.

    Raises:
      FileNotFoundError: if it has neither.
      ValueError: if the file is broken or of another kind of tokenizer, or the package `tokenizers` is missing.
    """
    path = Path(path)
    files = FILES[:1] if multilingual else FILES
    found = [path / name for name in files if (path / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{path} has no tokenizer: expected {' or '.join(files)}")
    try:
        import tokenizers
    except ImportError:
        raise ValueError(
            f"{found[0]} is read by the package tokenizers, which is not installed: pip install 'jaxdiff[t5]'"
        ) from None
    tokenizer = _from_json(tokenizers, found[0]) if found[0].suffix == ".json" else _from_spiece(tokenizers, found[0])
    ids = {START: 0, PAD: 1, END: 2} if multilingual else {PAD: 0, END: 1}
    for word, expected in ids.items():
        if tokenizer.token_to_id(word) != expected:
            whose = "XLM-RoBERTa" if multilingual else "T5"
            raise ValueError(
                f"{found[0]}: {word} has the id {tokenizer.token_to_id(word)}, and {whose}'s is {expected}"
            )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    more = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    more += ["sentencepiece.bpe.model"] if multilingual else []
    beside = [path / name for name in more if (path / name).is_file()]
    files_of = {file.name: file.read_bytes() for file in (*found, *beside)}
    return Unigram(tokenizer, files_of, end=ids[END], start=ids.get(START), pad=ids[PAD])


def _from_json(tokenizers: Any, file: Path) -> Any:
    try:
        kind = json.loads(file.read_text(encoding="utf-8"))["model"]["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not a tokenizer of the package tokenizers: {type(error).__name__}: {error}"
        ) from None
    if kind != "Unigram":
        raise ValueError(f"{file} is a {kind} tokenizer: T5's is a Unigram")
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises nothing more special
        raise ValueError(f"{file} cannot be read: {error}") from None


def _from_spiece(tokenizers: Any, file: Path) -> Any:
    try:
        fields = list(_fields(file.read_bytes()))
        pieces = [dict(_fields(value)) for number, value in fields if number == 1]
        vocabulary = [(piece[1].decode(), piece.get(2, 0.0)) for piece in pieces]
        trained, normal = (dict(_fields(b"".join(v for n, v in fields if n == number))) for number in (2, 3))
    except (ValueError, KeyError, IndexError, AttributeError, struct.error) as error:
        raise ValueError(f"{file} is not a model of SentencePiece: {type(error).__name__}: {error}") from None
    if not vocabulary or trained.get(3, 1) != 1 or trained.get(35):
        raise ValueError(f"{file} is of another kind than T5's: expected unigram pieces, none of bytes")
    names = [piece for piece, _ in vocabulary]
    if UNKNOWN not in names:
        raise ValueError(f"{file} has no piece {UNKNOWN}: T5's vocabulary has it")
    special = [f"<extra_id_{n}>" for n in range(_SENTINELS - 1, -1, -1)]
    vocabulary += [(piece, 0.0) for piece in special if piece not in names]
    model = tokenizers.models.Unigram(vocabulary, unk_id=names.index(UNKNOWN), byte_fallback=False)
    tokenizer = tokenizers.Tokenizer(model)
    if table := normal.get(2):
        tokenizer.normalizer = tokenizers.normalizers.Precompiled(table)
    pre = tokenizers.pre_tokenizers
    marked = pre.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre.Sequence([pre.WhitespaceSplit(), marked])
    tokenizer.add_special_tokens([PAD, END, UNKNOWN, *special])
    return tokenizer


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of each field of a protocol buffer: whole numbers, floats, and bytes with a length."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None and kind != 2:
            raise ValueError(f"a field of the unknown type {kind} at byte {at}")
        size = varint() if size is None else size
        if at + size > len(data):
            raise ValueError(f"it ends at byte {len(data)}, within a field of {size}")
        value = data[at : at + size]
        at += size
        yield number, struct.unpack("<f", value)[0] if kind == 5 else value
