"""Accidents and odd fields in files of other families than Stable Diffusion: one line, or weights that are finite.

Karlo, Kandinsky, Stable unCLIP, DeepFloyd IF (T5), GLIDE and DALL-E mini; and the config.json of runs of every kind.
"""

import functools
import json
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from bad_input import VALUES, changed, damaged, paths, told
from pipelines import test_imagen, test_kandinsky, test_kandinsky_text, test_unclip
from pretrained import glide_files, test_dalle_mini

from jaxdiff import experiment
from jaxdiff.cli.config import read_config
from jaxdiff.pretrained import dalle_mini, glide, unigram_tokenizer
from jaxdiff.pretrained.read import read_component, read_directory, read_tokenizer
from jaxdiff.pretrained.write import write_directory


def kandinsky(folder):
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(bytes(test_kandinsky_text.ARRAYS["json"]))
    return test_kandinsky_text.kandinsky(unigram_tokenizer.read(folder, "XLMRobertaTokenizer"))


def imagen(folder):
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(bytes(np.load(test_imagen.REFERENCE / "t5.npz")["json"]))
    return test_imagen.bundle(test_imagen.tokenizer_unigram.read(folder), "if one")


DIRECTORIES = {
    "karlo": lambda folder: test_unclip.bundle(),
    "karlo varies": lambda folder: test_unclip.bundle("UnCLIPImageVariationPipeline"),
    "kandinsky 2.2": lambda folder: test_kandinsky.decoder_bundle(),
    "prior": lambda folder: test_kandinsky.prior_bundle(),
    "kandinsky 2.1": kandinsky,
    "stable unclip": lambda folder: test_kandinsky_text.stable(prior=False),
    "imagen": imagen,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The name of a family -> its directory, which nothing changes."""
    top = tmp_path_factory.mktemp("families")

    @functools.cache
    def make(name):
        write_directory(DIRECTORIES[name](top / f"{name} tokenizer"), top / name)
        return top / name

    return make


def finite(params):
    for leaf in jax.tree.leaves(params):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


def read_part(folder, name, kind):
    """Reads one file's part of a directory, and nothing else."""
    if name.startswith("tokenizer"):
        assert read_tokenizer(folder / name, kind).encode("a red heart", 12).shape
    elif name.endswith("scheduler"):
        whole = [part.name for part in folder.iterdir() if part.is_dir() and part.name != name]
        assert np.isfinite(read_directory(folder, without=whole).process(name).times(4)).all()
    else:
        finite(read_component(folder / name).params)


LIGHT = ("imagen", "kandinsky 2.1", "prior")
FAMILIES = [pytest.param(name, marks=[] if name in LIGHT else [pytest.mark.heavy]) for name in DIRECTORIES]


@pytest.mark.parametrize("family", FAMILIES)
def test_accidents_of_every_file_of_a_directory(whole, tmp_path, family):
    rng, count = random.Random(family), 0
    shutil.copytree(whole(family), tmp_path / "model")
    index = json.loads((whole(family) / "model_index.json").read_text())
    for path in sorted(path.relative_to(whole(family)) for path in whole(family).rglob("*") if path.is_file()):
        data, place = (whole(family) / path).read_bytes(), tmp_path / "model" / path
        for _ in range(4 if len(data) < 10**6 else 2):
            place.write_bytes(damaged(data, rng))
            if path.parent == Path():
                call = functools.partial(read_directory, tmp_path / "model", without=[*index])
            else:
                call = functools.partial(read_part, tmp_path / "model", str(path.parent), index[str(path.parent)][1])
            told(call)
            count += 1
        place.write_bytes(data)
    assert count >= 12


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_fields_of_every_config_of_a_directory(whole, tmp_path, family):
    rng = random.Random(family)
    shutil.copytree(whole(family), tmp_path / "model")
    for path in sorted(whole(family).glob("*/config.json")):
        place, config = tmp_path / "model" / path.parent.name / "config.json", json.loads(path.read_text())
        for field in rng.sample([*config, "another"], min(5, len(config))):
            place.write_text(json.dumps({**config, field: rng.choice(VALUES)}))
            told(functools.partial(read_part, tmp_path / "model", path.parent.name, ""))
        place.write_bytes(path.read_bytes())


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["base", "upsample", "base-inpaint"])
def test_accidents_of_glides_files(tmp_path, name):
    (path,), rng = glide_files.write(tmp_path, name), random.Random(name)
    for file in (path, tmp_path / "encoder.json.gz", tmp_path / "vocab.bpe"):
        data = file.read_bytes()
        for _ in range(6):
            file.write_bytes(damaged(data, rng))
            told(lambda: [finite(part.params) for part in glide.read(path).components.values()])
        file.write_bytes(data)


@pytest.mark.heavy
@pytest.mark.parametrize("layers", ["stacked", "apart"])
def test_accidents_of_dalle_mini(tmp_path, layers):
    folder, rng = tmp_path / "model", random.Random(layers)
    config = {"model_type": "dallebart", "architectures": ["DalleBart"], **test_dalle_mini.INDEX["config"]}
    test_dalle_mini.save(folder, layers, config)
    (folder / "tokenizer.json").write_bytes(bytes(test_dalle_mini.ARRAYS["tokenizer"]))
    vqgan = {"model_type": "vqgan", **test_dalle_mini.INDEX["vqgan"]}
    test_dalle_mini.save(folder / "vqgan", "vqgan", vqgan)
    read = lambda: [finite(part.params) for part in dalle_mini.read(folder).components.values()]
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = file.read_bytes()
        for _ in range(6):
            file.write_bytes(damaged(data, rng))
            told(read)
        file.write_bytes(data)
    for file, fields in ((folder / "config.json", config), (folder / "vqgan" / "config.json", vqgan)):
        for field in rng.sample([*fields], 8):
            file.write_text(json.dumps({**fields, field: rng.choice(VALUES)}))
            told(read)
        file.write_text(json.dumps(fields))


CONFIGS = Path(__file__).parents[2] / "configs"


@functools.cache
def kinds():
    """The kind of a task -> a small experiment of it, as config.json has it."""
    found = {}
    for path in sorted(CONFIGS.rglob("*.py")):
        saved = json.loads(experiment.to_json(read_config(path, small=True)))
        found.setdefault(saved["task"]["kind"], saved)
    return found


def test_odd_values_in_runs_of_every_kind(tmp_path):
    """What is read says the value that the file has."""
    rng, refused = random.Random(0), 0
    assert len(kinds()) > 25
    for kind, saved in kinds().items():
        of_the_task = [place for place in paths(saved) if place[:1] == ("task",) and len(place) > 1]
        for place in rng.choices(of_the_task, k=12):
            value = rng.choice(VALUES)
            (tmp_path / "config.json").write_text(json.dumps(made := changed(saved, place, value)))
            read: list[experiment.Experiment] = []
            if told(lambda read=read: read.append(experiment.read(tmp_path)), tmp_path):
                refused += 1
            elif not (place[-1:] == ("remat",) and value is True):  # as runs of before it had names
                back = json.loads(experiment.to_json(read[0]))
                assert {**saved, **made} == back or value == {}, (kind, place, value)
    assert refused > 6 * len(kinds())
