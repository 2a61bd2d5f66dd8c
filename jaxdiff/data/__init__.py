"""Pictures with captions: sources, TFDS builders, tokenizers, and the pipeline that batches them."""
