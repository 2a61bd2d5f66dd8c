"""Damage at seeded random places of every file that is read: a short message, or weights that are whole.

Nothing here draws a picture: a file that loads has to be sound by then.
"""

import json
import math
import random
import shutil

import jax
import numpy as np
import pytest
from bad_input import damaged
from pipelines import directory, small

from jaxdiff.pretrained import single_file
from jaxdiff.pretrained.bundle import read_bundle

NAMES = {"unet": "tiny unet", "vae": "tiny vae", "text_encoder": "tiny text"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    top = tmp_path_factory.mktemp("whole")
    directory.save(top / "sd", NAMES)
    return top / "sd"


@pytest.fixture(scope="module")
def one_file(model):
    path = model.parent / "model.safetensors"
    with pytest.warns(UserWarning, match="one file does not say"):
        single_file.write(read_bundle(model), path)
    return path


@pytest.fixture(autouse=True)
def presets(monkeypatch):
    """Single files of the tiny model are of the size that the reader expects."""
    tiny = {name: small.part(entry).json for name, entry in NAMES.items()}
    monkeypatch.setitem(single_file.PRESETS, "sd2", tiny)


def loaded_or_told(path, **options):
    """What a damaged model gives: an error that a user can read, or finite weights."""
    bundle, told = None, ""
    try:
        bundle = read_bundle(path, **options)
        assert np.isfinite(bundle.process().times(4)).all()
    except (ValueError, OSError) as error:
        told = str(error)
    assert told or bundle
    assert "\n" not in told
    assert len(told) < 700, told  # 600, and the temporary folder's path
    for part in bundle.components.values() if bundle and not told else ():
        for leaf in jax.tree.leaves(part.params):
            assert np.isfinite(np.asarray(leaf, np.float32)).all()


def others(name):
    """The networks that are whole when that file is damaged, which need not be read again."""
    return [part for part in NAMES if part != name.split("/")[0]]


FILES = [
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "scheduler/scheduler_config.json",
]


@pytest.mark.parametrize("name", FILES)
def test_accidents(model, tmp_path, name):
    rng = random.Random(name)
    shutil.copytree(model, tmp_path / "sd")
    whole = (model / name).read_bytes()
    for _ in range(4):
        (tmp_path / "sd" / name).write_bytes(damaged(whole, rng))
        loaded_or_told(tmp_path / "sd", without=others(name))


VALUES = [None, True, -1, 0, 3, 2.5, math.nan, 10**30, "x", "8", [], [1, "a"], [[1], 2], {}, {"a": 1}]
JSONS = [name for name in FILES if name.endswith(".json") and "vocab" not in name and "scheduler" not in name]


@pytest.mark.parametrize("name", JSONS)
def test_fields_of_wrong_types(model, tmp_path, name):
    rng = random.Random(name)
    shutil.copytree(model, tmp_path / "sd")
    whole = json.loads((model / name).read_text())
    for field in rng.sample([*whole, "another"], min(8, len(whole))):
        (tmp_path / "sd" / name).write_text(json.dumps({**whole, field: rng.choice(VALUES)}))
        loaded_or_told(tmp_path / "sd", without=others(name))
    for value in ([], "text", 5, None, [whole]):
        (tmp_path / "sd" / name).write_text(json.dumps(value))
        loaded_or_told(tmp_path / "sd", without=others(name))


@pytest.mark.parametrize("name", FILES)
def test_missing_files(model, tmp_path, name):
    shutil.copytree(model, tmp_path / "sd")
    (tmp_path / "sd" / name).unlink()
    loaded_or_told(tmp_path / "sd", without=others(name))
    (tmp_path / "sd" / name).mkdir()
    loaded_or_told(tmp_path / "sd", without=others(name))


@pytest.mark.parametrize("seed", range(8))
def test_accidents_of_one_file(one_file, tmp_path, seed):
    rng = random.Random(seed)
    data, path = one_file.read_bytes(), tmp_path / "model.safetensors"
    header = int.from_bytes(data[:8], "little")
    cut = rng.choice([8, 8 + header, len(data)])  # the length, the header, the numbers
    path.write_bytes(damaged(data[:cut], rng) + data[cut:])
    loaded_or_told(path, prediction="epsilon")


@pytest.mark.parametrize("part", ["vae", "controlnet_00"])
@pytest.mark.parametrize("seed", range(4))
def test_accidents_of_one_networks_file(model, one_file, tmp_path, seed, part):
    rng = random.Random(seed)
    (tmp_path / "part.safetensors").write_bytes(damaged(one_file.read_bytes(), rng))
    loaded_or_told(model, parts={part: tmp_path / "part.safetensors"})
