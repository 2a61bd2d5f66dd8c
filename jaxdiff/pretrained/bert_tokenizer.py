"""The WordPiece tokenizer of a model directory, BERT's: its vocabulary, and what its configs say."""

from pathlib import Path

from jaxdiff.data import tokenizer_bert
from jaxdiff.data.tokenizer_bert import END, MASK, PAD, START, UNKNOWN, WordPiece
from jaxdiff.pretrained import clip_tokenizer
from jaxdiff.pretrained.clip_tokenizer import configs, special
from jaxdiff.pretrained.rules.fields import Fields, one_of, optional, whole

CLASSES = ("BertTokenizer", "BertTokenizerFast")
_FIELDS: Fields = {
    "pad_token": special(PAD),
    "cls_token": special(START),
    "sep_token": special(END),
    "unk_token": special(UNKNOWN),
    "mask_token": special(MASK),
    "tokenizer_class": one_of(*CLASSES),
    "padding_side": one_of("right"),
    "truncation_side": one_of("right"),
    "model_max_length": optional(whole(None, 2, 10**30)),
    "do_lower_case": one_of(True),
    "strip_accents": one_of(None, True),
    "tokenize_chinese_chars": one_of(True),
    "do_basic_tokenize": one_of(True),
    "never_split": one_of(None),
}
_HARMLESS = {
    **{field: why for field, why in clip_tokenizer.HARMLESS.items() if field not in _FIELDS},
    "added_tokens_decoder": "the vocabulary has them",
    "extra_special_tokens": "the vocabulary has them",
}


def read(path: Path | str) -> WordPiece:
    """Returns the tokenizer of a directory, as transformers writes it.

    Raises:
      FileNotFoundError: if the directory has no vocabulary.
      ValueError: if the file holds no such vocabulary, or configs say what is not served; names the fields.
    """
    path, length = Path(path), 77
    for _, full in configs(path, _FIELDS, _HARMLESS):
        if full["model_max_length"] is not None:
            length = min(full["model_max_length"], 10**6)
    return tokenizer_bert.read(path, length)
