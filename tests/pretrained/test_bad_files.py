"""Accidents and odd values in the files beside a model: LoRA, words, PyTorch's files, indexes, tokenizers."""

import json
import random
import struct

import jax
import numpy as np
import pytest
from bad_input import VALUES, changed, damaged, paths, told
from pipelines import directory, small
from reference.sd_weights import weights
from safetensors.numpy import save_file
from support import REFERENCE

from jaxdiff.pretrained import clip_tokenizer, files, index, lora

WHERE = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
FACTORS = {f"{WHERE}.lora_A.weight": (2, 8), f"{WHERE}.lora_B.weight": (8, 2)}
NOTES = {
    "r": 2,
    "lora_alpha": 4,
    "use_rslora": False,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "peft_type": "LORA",
    "init_lora_weights": True,
    "target_modules": ["to_k"],
    "lora_bias": False,
    "bias": "none",
    "a_new_field": None,
}
HARMLESS = {"target_modules", "lora_bias"}  # of training; biases are read where the file has them
NO_MODULE = {"a": 1}
"""A pattern of rank or alpha that no module has."""


@pytest.fixture(scope="module")
def components():
    return {"unet": small.part("tiny unet")}


def named(prefix):
    return weights({f"{prefix}{name}": shape for name, shape in FACTORS.items()})


def finite(tree):
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(tree))


@pytest.fixture
def file(tmp_path):
    save_file(named("unet."), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_accidents_of_a_lora(components, file):
    whole, rng = file.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(60):
        file.write_bytes(damaged(whole, rng))
        refused += bool(told(lambda: finite(lora.read(file, components)), file))
    assert refused > 30


def test_odd_values_in_the_header_of_safetensors(components, file):
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    for path in paths(header):
        for value in VALUES:
            text = json.dumps(made := changed(header, path, value)).encode()
            file.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
            if not told(lambda: finite(lora.read(file, components)), file):
                assert made == header


@pytest.mark.parametrize("noted", ["in the file", "beside it"])
def test_odd_values_of_the_notes_of_a_lora(components, tmp_path, noted):
    """What is passed over is null or empty, or has the meaning of the default."""
    path = tmp_path / "adapter_model.safetensors"
    whole, rng = lora.read(written(path, NOTES, noted), components), random.Random(noted)
    for field in NOTES:
        for value in rng.sample(VALUES, 8):
            where = written(path, {**NOTES, field: value}, noted)
            read = []
            message = told(lambda where=where, read=read: read.append(lora.read(where, components)), tmp_path)
            if (
                not message
                and value not in (None, False, "", [], {}, NO_MODULE, NOTES[field])
                and field not in HARMLESS
            ):
                assert not jax.tree.all(jax.tree.map(np.array_equal, read[0], whole)), (field, value)


def written(path, notes, noted):
    if noted == "in the file":
        told = json.dumps({f"unet.{field}": value for field, value in notes.items()})
        save_file(named("unet."), path, {"lora_adapter_metadata": told})
        return path
    save_file(named("base_model.model."), path)
    (path.parent / "adapter_config.json").write_text(json.dumps(notes))
    return path.parent


NO_NOTES = (
    *("", "{", "[]", "null", "5", '"x"', "[" * 10**5, '{"unet.r": 1e999}', '{"unet.r": "2"}'),
    *('{"unet.alpha_pattern": {"(": 2}}', '{"unet.alpha_pattern": {".*": "x"}}'),
)


@pytest.mark.parametrize("text", NO_NOTES)
def test_notes_that_are_no_notes(components, file, text):
    save_file(named("unet."), file, {"lora_adapter_metadata": text})
    assert told(lambda: lora.read(file, components), file)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "int8", "bool"])
@pytest.mark.parametrize("shapes", [((0, 8), (8, 0)), ((2,), (8,)), ((2, 9), (8, 2)), ((), ())])
def test_odd_shapes_of_factors(components, file, dtype, shapes):
    save_file({name: np.ones(shape, dtype) for name, shape in zip(named("unet."), shapes, strict=True)}, file)
    assert told(lambda: lora.read(file, components), file)


@pytest.mark.parametrize("name", ["sd_word.pt", "sd_nested.ckpt", "sd_tensors.bin"])
def test_accidents_of_files_of_pytorch(tmp_path, name):
    whole, rng, path = (REFERENCE / name).read_bytes(), random.Random(name), tmp_path / name
    refused = 0
    for _ in range(60):
        path.write_bytes(damaged(whole, rng))
        refused += bool(told(lambda: [np.asarray(x) for x in files.read_tensors(path, bare="").values()], path))
    assert refused > 30


WHOLE = {
    "metadata": {"total_size": 24},
    "weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"},
}


@pytest.fixture
def sharded(tmp_path):
    for name, file in WHOLE["weight_map"].items():
        save_file({name: np.ones(3, np.float32)}, tmp_path / file)
    return tmp_path


def test_odd_values_of_the_index_of_a_sharded_file(sharded):
    read = lambda: [np.asarray(x) for x in files.read_weights(sharded, None).values()]
    path = sharded / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(WHOLE))
    assert len(read()) == 2
    for at in paths(WHOLE):
        for value in (*VALUES, "../x", "/etc/passwd", "none.safetensors"):
            path.write_text(json.dumps(changed(WHOLE, at, value)))
            if not told(read, sharded):
                assert at[:1] == ("metadata",) or value == {}, (at, value)  # of no tensors: then all are missing
    text, rng = json.dumps(WHOLE).encode(), random.Random(0)
    for _ in range(30):
        path.write_bytes(damaged(text, rng))
        told(read, sharded)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return directory.save(tmp_path_factory.mktemp("model") / "sd", small.TINY)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"])
def test_accidents_of_a_tokenizer(model, tmp_path, name):
    for file in (model / "tokenizer").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path, rng = tmp_path / name, random.Random(name)
    whole = path.read_bytes()
    made = [damaged(whole, rng) for _ in range(30)]
    if name.endswith(".json"):
        value = json.loads(whole)
        places = rng.sample([*paths(value)], 5)
        made += [json.dumps(changed(value, at, odd)).encode() for at in places for odd in VALUES]
    refused = 0
    for data in made:
        path.write_bytes(data)
        refused += bool(told(lambda: clip_tokenizer.read(tmp_path).encode("a red hat", 16), tmp_path))
    assert refused > len(made) / 2


def test_odd_values_of_model_index(model, tmp_path):
    whole = json.loads((model / "model_index.json").read_text())
    for at in paths(whole):
        for value in VALUES:
            (tmp_path / "model_index.json").write_text(json.dumps(changed(whole, at, value)))
            told(lambda: index.read(tmp_path, ()), tmp_path, whole["_class_name"])
