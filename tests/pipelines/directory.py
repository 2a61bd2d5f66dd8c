"""Small models on disk, as users have them."""

import numpy as np
from pipelines import small

from jaxdiff.pretrained.write import write_component, write_directory


def save(path, names=small.TINY, **index):
    """A model directory of diffusers."""
    bundle = small.bundle(names, **index)
    write_directory(bundle, path)
    saved = np.load(small.REFERENCE / "sd_tokenizer.npz")
    for name in bundle.tokenizers:
        (path / name).mkdir()
        (path / name / "vocab.json").write_bytes(bytes(saved["vocab"]))
        (path / name / "merges.txt").write_bytes(bytes(saved["merges"]))
    return path


def save_part(path, name):
    write_component(small.part(name), path)
    return path
