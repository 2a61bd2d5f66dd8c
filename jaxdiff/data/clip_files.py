"""The files of CLIP's tokenizer, read and checked: vocabulary, merges, added tokens, and which token pads."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdiff.data.clip_words import END, LETTER, START

_BYTES = frozenset([*LETTER, *(letter + "</w>" for letter in LETTER)])
_PUBLISHED = 49408
"""Tokens of the published vocabularies; one of this size whose merges do not make all of them is damaged."""


def read(path: Path | str) -> tuple[dict[str, int], tuple[tuple[str, str], ...], str, dict[str, tuple[int, ...]]]:
    """Reads a directory with vocab.json and merges.txt, or tokenizer.json, as transformers writes them.

    Returns the fields of a `ClipTokenizer`: ids, merges, padding token, added words.

    Raises:
      FileNotFoundError: if the directory has neither, or one of the two files.
      ValueError: if the files hold no CLIP vocabulary, are damaged, or are of another kind of tokenizer.
    """
    path = Path(path)
    vocab, lines, combined = path / "vocab.json", path / "merges.txt", path / "tokenizer.json"
    added: dict[Any, Any] = {}
    if vocab.is_file() and lines.is_file():
        ids, merges, file = _json(vocab), _lines(lines), lines
        vocab_file = vocab
        if (path / "added_tokens.json").is_file():
            added = _json(path / "added_tokens.json")
    elif combined.is_file():
        vocab_file = file = combined
        saved = _json(combined)
        model = _typed(saved.get("model"), dict, combined, "model")
        for name, expected in {"type": "BPE", "end_of_word_suffix": "</w>"}.items():
            if model.get(name, expected) != expected:
                raise ValueError(f"{combined}: {name} is {model[name]!r}: CLIP's tokenizer has {expected!r}")
        ids, merges = _typed(model.get("vocab"), dict, combined, "vocab"), model.get("merges")
        for token in _typed(saved.get("added_tokens", []), list, combined, "added_tokens"):
            added[_content(token, combined, "added_tokens")] = token.get("id") if isinstance(token, dict) else None
    else:
        there = " and ".join(file.name for file in (vocab, lines) if file.is_file())
        only = f" ({there} alone is there)" if there else ""
        raise FileNotFoundError(f"no tokenizer in {path}: expected vocab.json and merges.txt, or tokenizer.json{only}")
    ids = _checked_ids(ids, vocab_file)
    if not ids:
        raise ValueError(f"{vocab_file} has no vocabulary: expected an object of tokens and their ids")
    added = _checked_ids(added, path / "added_tokens.json" if vocab_file == vocab else combined)
    return ids, _checked_merges(merges, ids, file), _pad(path), _joined(added)


def _joined(tokens: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Joins words with all their ids: the second id of `word` is that of the token `word_1`, as in diffusers."""
    rest = lambda word: itertools.takewhile(tokens.__contains__, (f"{word}_{n}" for n in itertools.count(1)))
    later = {token for word in tokens for token in rest(word)}
    return {word: (i, *(tokens[token] for token in rest(word))) for word, i in tokens.items() if word not in later}


def _pad(path: Path) -> str:
    """Returns the token that pads: what special_tokens_map.json or tokenizer_config.json says, else the end token."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path / name).is_file() and (token := _json(path / name).get("pad_token")):
            return _content(token, path / name, "pad_token")
    return END


def _content(token: Any, path: Path, name: str) -> str:
    """Returns the text of a token, which is a string or has `content`."""
    return _typed(token.get("content") if isinstance(token, dict) else token, str, path, name)


def _checked_ids(ids: Mapping[Any, Any], path: Path) -> dict[str, int]:
    for token, i in ids.items():
        if not isinstance(token, str) or not token or type(i) is not int or not 0 <= i < 2**31:
            raise ValueError(f"{path}: token {str(token)[:80]!r} has the id {str(i)[:80]}: expected a whole number")
    if len(set(ids.values())) < len(ids):
        raise ValueError(
            f"{path} gives one id to several tokens: it has {len(ids)} tokens, {len(set(ids.values()))} ids"
        )
    return dict(ids)


def _checked_merges(merges: Any, ids: Mapping[str, int], path: Path) -> tuple[tuple[str, str], ...]:
    pairs = []
    for line in _typed(merges, list, path, "merges"):
        pair = line.split(" ") if isinstance(line, str) else line
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise ValueError(f"{path}: a merge joins two tokens, got {str(line)[:80]!r}")
        if "".join(pair) not in ids:
            raise ValueError(f"{path}: a merge makes {''.join(pair)!r}, which the vocabulary lacks: they do not fit")
        pairs.append((pair[0], pair[1]))
    if not pairs:
        raise ValueError(f"{path} has a vocabulary but no merges, so words fall to letters: copy merges.txt there")
    lost = len(ids.keys() - _BYTES - {START, END} - {a + b for a, b in pairs}) if len(ids) >= _PUBLISHED else 0
    if lost:
        raise ValueError(f"{path} is damaged: {lost} tokens of the vocabulary are made by none of its merges")
    return tuple(pairs)


def _typed(value: Any, kind: type, path: Path, name: str) -> Any:
    if not isinstance(value, kind):
        wanted: dict[Any, str] = {dict: "an object", list: "a list", str: "a string"}
        raise ValueError(f"{path}: {name} is {str(value)[:80]}: expected {wanted[kind]}")
    return value


def _lines(path: Path) -> list[str]:
    return [line for line in _text(path).split("\n") if line and not line.startswith("#version")]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
