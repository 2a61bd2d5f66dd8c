"""Small checkpoints of GLIDE with weights by formula, as files; glide.npz has what the published code makes of them."""

import gzip
import pathlib

from reference.sd_weights import load, weights

from jaxdiff.pretrained import files

INDEX, ARRAYS = load(pathlib.Path(__file__).parents[1] / "reference" / "glide.npz")
PROMPTS = INDEX["prompts"]


def write(folder, *names, words=True):
    """Writes checkpoints, and the tokenizer beside them, and returns their paths."""
    if words:
        (folder / "encoder.json.gz").write_bytes(gzip.compress(bytes(ARRAYS["vocabulary"])))
        (folder / "vocab.bpe").write_bytes(bytes(ARRAYS["merges"]))
    for name in names:
        files.write_safetensors(folder / f"{name}.safetensors", weights(INDEX["models"][name]))
    return [folder / f"{name}.safetensors" for name in names]
