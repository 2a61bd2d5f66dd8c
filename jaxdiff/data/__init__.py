"""Pictures with captions: sources, TFDS builders, tokenizers, and the pipeline that batches them."""

from jaxdiff.data.config import DataConfig, Example, Source
from jaxdiff.data.pipeline import Batches, batches
from jaxdiff.data.source import open_source
from jaxdiff.data.tokenizer import BytePair

__all__ = ["Batches", "BytePair", "DataConfig", "Example", "Source", "batches", "open_source"]
