"""The unigram tokenizer of a model directory, T5's or XLM-RoBERTa's: its vocabulary, and what its configs say."""

from pathlib import Path

from jaxdiff.data import tokenizer_unigram
from jaxdiff.data.tokenizer_unigram import END, PAD, START, UNKNOWN, Unigram
from jaxdiff.pretrained.clip_tokenizer import HARMLESS, configs, special
from jaxdiff.pretrained.rules.fields import Fields, either, number, one_of, optional, whole

T5 = ("T5Tokenizer", "T5TokenizerFast")
XLM = ("XLMRobertaTokenizer", "XLMRobertaTokenizerFast")
CLASSES = (*T5, *XLM)
_FIELDS: Fields = {
    "eos_token": special(END),
    "unk_token": special(UNKNOWN),
    "pad_token": special(PAD),
    "tokenizer_class": one_of(*T5),
    "padding_side": one_of("right"),
    "truncation_side": one_of("right"),
    "model_max_length": optional(either(whole(None, 2), number(None, 2.0))),
    "extra_ids": one_of(100),
}
_XLM_FIELDS: Fields = {
    **{field: one for field, one in _FIELDS.items() if field != "extra_ids"},
    **dict.fromkeys(("bos_token", "cls_token"), special(START)),
    "sep_token": special(END),
    "mask_token": special("<mask>"),
    "tokenizer_class": one_of(*XLM),
    "add_prefix_space": one_of(True),
}
_HARMLESS = {
    **HARMLESS,
    "legacy": "of another way to split than the files' own, which the reference has given up",
    "sp_model_kwargs": "of drawing splits at random",
    "extra_special_tokens": "the files have them",
    "additional_special_tokens": "the files have them",
    "added_tokens_decoder": "the files have them",
}


def read(path: Path | str, kind: str = T5[0]) -> Unigram:
    """Returns the tokenizer of a directory, as transformers writes it, of a class of `CLASSES`.

    Raises:
      FileNotFoundError: if the directory has no vocabulary.
      ValueError: if the files hold no such vocabulary, or their configs say what is not served; names the fields.
    """
    multilingual = kind in XLM
    configs(path := Path(path), _XLM_FIELDS if multilingual else _FIELDS, _HARMLESS)
    return tokenizer_unigram.read(path, multilingual)
