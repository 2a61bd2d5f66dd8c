"""The T5 tokenizer of a model directory: its vocabulary, and what its configs say."""

from pathlib import Path

from jaxdiff.data import tokenizer_unigram
from jaxdiff.data.tokenizer_unigram import END, PAD, UNKNOWN, Unigram
from jaxdiff.pretrained.clip_tokenizer import HARMLESS, configs, special
from jaxdiff.pretrained.rules.fields import Fields, either, number, one_of, optional, whole

CLASSES = ("T5Tokenizer", "T5TokenizerFast")
_FIELDS: Fields = {
    "eos_token": special(END),
    "unk_token": special(UNKNOWN),
    "pad_token": special(PAD),
    "tokenizer_class": one_of(*CLASSES),
    "padding_side": one_of("right"),
    "truncation_side": one_of("right"),
    "model_max_length": optional(either(whole(None, 2), number(None, 2.0))),
    "extra_ids": one_of(100),
}
_HARMLESS = {
    **HARMLESS,
    "legacy": "of another way to split than the files' own, which the reference has given up",
    "sp_model_kwargs": "of drawing splits at random",
    "extra_special_tokens": "the files have them",
    "additional_special_tokens": "the files have them",
    "added_tokens_decoder": "the files have them",
}


def read(path: Path | str) -> Unigram:
    """The tokenizer of a directory, as transformers writes it.

    Raises:
      FileNotFoundError: if the directory has no vocabulary.
      ValueError: if the files hold no T5 vocabulary, or their configs say what is not served; names the fields.
    """
    configs(path := Path(path), _FIELDS, _HARMLESS)
    return tokenizer_unigram.read(path)
