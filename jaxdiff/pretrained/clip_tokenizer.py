"""The tokenizer of a model directory."""

from pathlib import Path

from jaxdiff.data import tokenizer_clip
from jaxdiff.data.tokenizer_clip import ClipTokenizer


def read(path: Path | str) -> ClipTokenizer:
    """The tokenizer of a directory with vocab.json and merges.txt, or tokenizer.json, as transformers writes them."""
    return tokenizer_clip.read(path)
