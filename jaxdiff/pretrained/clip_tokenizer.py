"""The tokenizer of a model directory: its vocabulary, and what its configs say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdiff.data import tokenizer_clip
from jaxdiff.data.tokenizer_clip import END, START, ClipTokenizer
from jaxdiff.pretrained.files import read_json
from jaxdiff.pretrained.rules.fields import Field, Fields, number, one_of, optional, settle

CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast")


def special(*words: str) -> Field:
    """A special token, as a word or as an object with its `content`."""
    fits = lambda x: (x.get("content") if isinstance(x, Mapping) else x) in words
    return Field(words[0], " or ".join(map(repr, words)), fits)


_FIELDS: Fields = {
    "bos_token": special(START),
    "eos_token": special(END),
    "unk_token": special(END, START),
    "pad_token": Field(END, "a word, or an object with content", lambda x: x is None or isinstance(x, str | Mapping)),
    "tokenizer_class": one_of(*CLASSES),
    "padding_side": one_of("right"),
    "truncation_side": one_of("right"),
    "model_max_length": optional(number(None, 2.0)),
    "added_tokens_decoder": Field({}, "an object of tokens by their ids", lambda x: isinstance(x, Mapping)),
}
HARMLESS = {
    "do_lower_case": "the reference makes letters small whatever it says",
    "add_prefix_space": "the reference adds none whatever it says",
    "errors": "of decoding",
    "clean_up_tokenization_spaces": "of decoding",
    "name_or_path": "of where it came from",
    "special_tokens_map_file": "of where it came from",
    "model_input_names": "of calls from Python",
    "use_fast": "both kinds give the same",
    "backend": "both kinds give the same",
    "is_local": "of where it came from",
    "local_files_only": "of where it came from",
    "tokenizer_file": "of where it came from",
    **dict.fromkeys(("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"), "of calls from Python"),
    "pad_token_type_id": "of models with two texts",
    "processor_class": "of other tasks",
    "chat_template": "of other tasks",
}
"""Fields of tokenizer_config.json that change no text's ids, and why."""


def read(path: Path | str) -> ClipTokenizer:
    """The tokenizer of a directory, as transformers writes it.

    Raises:
      FileNotFoundError: if the directory has no vocabulary.
      ValueError: if the files hold no CLIP vocabulary, or their configs say what is not served; names the fields.
    """
    tokenizer = tokenizer_clip.read(path := Path(path))
    for file, full in configs(path, _FIELDS, HARMLESS):
        _check_added(file, tokenizer, full["added_tokens_decoder"])
    return tokenizer


def configs(path: Path, fields: Fields, harmless: Mapping[str, str]) -> list[tuple[Path, dict[str, Any]]]:
    """Reads the configs beside a tokenizer that are there, with all `fields`: (file, values).

    Raises:
      ValueError: if one says what is not served; names the field.
    """
    files = [path / name for name in ("tokenizer_config.json", "special_tokens_map.json")]
    return [(file, settle(f"{file}", read_json(file), fields, harmless)) for file in files if file.is_file()]


def length(path: Path | str) -> float | int | None:
    """How many tokens a text becomes, as far as tokenizer_config.json tells."""
    file = Path(path) / "tokenizer_config.json"
    return read_json(file).get("model_max_length") if file.is_file() else None


def _check_added(path: Path, tokenizer: ClipTokenizer, added: Mapping[str, Any]) -> None:
    """Refuses tokens that the vocabulary does not have under the same id."""
    known = {i for ids in tokenizer.added.values() for i in ids} | {*tokenizer.ids.values()}
    for i, token in added.items():
        word = token.get("content") if isinstance(token, Mapping) else None
        if not isinstance(word, str) or not i.isdigit() or int(i) not in known:
            raise ValueError(
                f"{path}: added_tokens_decoder has the token {str(word)[:80]!r} as {i[:20]}: no file has it"
            )
