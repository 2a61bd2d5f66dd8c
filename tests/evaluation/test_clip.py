"""CLIP's vectors against transformers'; tests/reference/metrics_clip.py made the fixture."""

import json
import pathlib

import numpy as np
import pytest
from pretrained.support import close
from reference.sd_weights import load, noise, weights

from jaxdiff.evaluation import clip, rerank
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.pretrained import clip_model, files

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
INDEX, FIXTURE = load(REFERENCE / "metrics_clip.npz")
CAPTIONS = ("a red heart", "green", "two blue squares on a book")


@pytest.fixture
def folder(tmp_path):
    entry = INDEX["clip"]
    (tmp_path / "config.json").write_text(json.dumps(entry["config"]))
    shapes = {name: shape for name, shape in entry["shapes"].items() if shape}
    files.write_safetensors(tmp_path / "model.safetensors", {**weights(shapes), "logit_scale": np.float32(2)})
    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    for name, key in (("vocab.json", "vocab"), ("merges.txt", "merges")):
        (tmp_path / name).write_bytes(bytes(saved[key]))
    return tmp_path


def test_vectors_are_those_of_transformers(folder):
    pixels = ((noise("pictures", (3, 20, 24, 3)) + 1) * 127.5).astype(np.uint8)
    order = [2, 0, 0, 1]  # captions come again
    pictures = Pictures("p", (20, 24), 4, lambda i: pixels[order[i]])
    seen, heard = clip.vectors(clip_model.read(folder), pictures, [CAPTIONS[i] for i in order], batch_size=1)
    for ours, theirs in ((seen, "pictures"), (heard, "captions")):
        unit = ours / np.linalg.norm(ours, axis=1, keepdims=True)
        close(unit, FIXTURE[f"clip/{theirs}"][order])
    seen, heard = rerank.embedder(folder)(pixels, CAPTIONS)
    cosine = (FIXTURE["clip/pictures"] * FIXTURE["clip/captions"]).sum(-1)
    close(rerank.similarity(seen, heard), cosine)


def test_what_does_not_serve_is_named(folder):
    model = clip_model.read(folder)
    with pytest.raises(ValueError, match="1 pictures and 0 captions"):
        clip.vectors(model, Pictures("p", (20, 24), 1, lambda i: None), [])
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"not a CLIPModel of transformers: .* has no text_config"):
        clip_model.read(folder)
