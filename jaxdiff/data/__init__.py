"""Pictures with captions: sources, TFDS builders, tokenizers, and the pipeline that batches them."""

from jaxdiff.data.pipeline import Batches, batches
from jaxdiff.data.source import DataConfig, Example, Source, open_source
from jaxdiff.data.tokenizer import BytePair

__all__ = ["Batches", "BytePair", "DataConfig", "Example", "Source", "batches", "open_source"]
