"""The files of CLIP's tokenizer, read and checked: vocabulary, merges, added tokens, and its config."""

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

    Added tokens, the padding token and the rest of tokenizer_config.json and special_tokens_map.json are honoured.
    Returns the fields of a `ClipTokenizer`: ids, merges, padding token, added words.

    Raises:
      FileNotFoundError: if the directory has neither, or one of the two files.
      ValueError: if the files hold no CLIP vocabulary, are damaged, or ask for what CLIP's tokenizer does not do.
    """
    path = Path(path)
    vocab, lines, whole = path / "vocab.json", path / "merges.txt", path / "tokenizer.json"
    added: dict[Any, Any] = {}
    if vocab.is_file() and lines.is_file():
        ids, merges, file = _json(vocab), _lines(lines), lines
        vocab_file = vocab
        if (path / "added_tokens.json").is_file():
            added = _json(path / "added_tokens.json")
    elif whole.is_file():
        vocab_file = file = whole
        saved = _json(whole)
        model = _typed(saved.get("model"), dict, whole, "model")
        for name, expected in {"type": "BPE", "end_of_word_suffix": "</w>"}.items():
            if model.get(name, expected) != expected:
                raise ValueError(f"{whole}: {name} is {model[name]!r}: CLIP's tokenizer has {expected!r}")
        ids, merges = _typed(model.get("vocab"), dict, whole, "vocab"), model.get("merges")
        for token in _typed(saved.get("added_tokens", []), list, whole, "added_tokens"):
            added[_content(token, whole, "added_tokens")] = token.get("id") if isinstance(token, dict) else None
    else:
        there = " and ".join(file.name for file in (vocab, lines) if file.is_file())
        only = f" ({there} alone is there)" if there else ""
        raise FileNotFoundError(f"no tokenizer in {path}: expected vocab.json and merges.txt, or tokenizer.json{only}")
    ids = _checked_ids(ids, vocab_file)
    if not ids:
        raise ValueError(f"{vocab_file} holds no vocabulary")
    config = _config(path)
    for number, token in config.pop("added_tokens_decoder", {}).items():
        added[_content(token, path, "added_tokens_decoder")] = int(number) if str(number).isdecimal() else number
    for token in config.pop("additional_special_tokens", None) or ():
        name = _content(token, path, "additional_special_tokens")
        if name not in added and name not in ids:
            raise ValueError(f"{path}: additional_special_tokens has {name!r}, which has no id there")
        added.setdefault(name, ids.get(name))
    added = _checked_ids(added, path)
    return ids, _checked_merges(merges, ids, file), config.get("pad_token") or END, _joined(added)


def _joined(tokens: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Words with all their ids: the second id of `word` is that of the token `word_1`, as diffusers names it."""
    rest = lambda word: itertools.takewhile(tokens.__contains__, (f"{word}_{n}" for n in itertools.count(1)))
    later = {token for word in tokens for token in rest(word)}
    return {word: (i, *(tokens[token] for token in rest(word))) for word, i in tokens.items() if word not in later}


_EXPECTED: Mapping[str, tuple[Any, ...]] = {
    "tokenizer_class": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "bos_token": (START,),
    "eos_token": (END,),
    "unk_token": (END,),
    "do_lower_case": (True,),
    "add_prefix_space": (False,),
    "split_special_tokens": (False,),
    "errors": ("replace",),
    "padding_side": ("right",),
    "truncation_side": ("right",),
}
"""Fields that would change a prompt's ids, and the values that CLIP's tokenizer has; the others do not matter here."""


def _config(path: Path) -> dict[str, Any]:
    """tokenizer_config.json under special_tokens_map.json, checked; tokens are strings."""
    config: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (path / name).is_file():
            for field_name, value in _json(path / name).items():
                token = field_name.endswith("_token") and value is not None
                config[field_name] = _content(value, path / name, field_name) if token else value
            for field_name, expected in _EXPECTED.items():
                value = config.get(field_name)
                if value is not None and value not in expected:
                    raise ValueError(f"{path / name}: {field_name} is {value!r}: CLIP's tokenizer has {expected[0]!r}")
    for name, kind in {"added_tokens_decoder": dict, "additional_special_tokens": list}.items():
        _typed(config.get(name) or kind(), kind, path, name)
    return config


def _content(token: Any, path: Path, name: str) -> str:
    """The text of a token, which is a string or has `content`."""
    return _typed(token.get("content") if isinstance(token, dict) else token, str, path, f"a token of {name}")


def _checked_ids(ids: Mapping[Any, Any], path: Path) -> dict[str, int]:
    for token, i in ids.items():
        if not isinstance(token, str) or not token or type(i) is not int or not 0 <= i < 2**31:
            raise ValueError(f"{path}: the token {token!r} has the id {i!r}: expected a whole number from 0")
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
        raise ValueError(f"{path} holds no merges: without them every word falls into its letters")
    lost = len(ids.keys() - _BYTES - {START, END} - {a + b for a, b in pairs}) if len(ids) >= _PUBLISHED else 0
    if lost:
        raise ValueError(f"{path} is damaged: {lost} tokens of the vocabulary are made by none of its merges")
    return tuple(pairs)


def _typed(value: Any, kind: type, path: Path, name: str) -> Any:
    if not isinstance(value, kind):
        wanted: dict[Any, str] = {dict: "an object", list: "a list", str: "a string"}
        raise ValueError(f"{path}: {name} is {str(value)[:80]!r}: expected {wanted[kind]}")
    return value


def _lines(path: Path) -> list[str]:
    return [line for line in _text(path).split("\n") if line and not line.startswith("#version")]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    return _typed(value, dict, path, "the whole")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
