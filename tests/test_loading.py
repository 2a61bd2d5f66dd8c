"""`jaxdiff.load` on model directories of diffusers, and what goes with them."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from pipelines import directory, own, small
from reference.sd_weights import weights
from safetensors.numpy import save_file

import jaxdiff
from jaxdiff import experiment, loading
from jaxdiff.pretrained import quantize, textual_inversion


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    top = tmp_path_factory.mktemp("model")
    directory.save(top / "sd")
    directory.save_part(top / "control", "tiny control")
    where = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file(weights({f"{where}.lora_A.weight": (2, 8), f"{where}.lora_B.weight": (8, 2)}), top / "lora.safetensors")
    textual_inversion.write(top / "word.safetensors", "<thing>", np.ones((2, 8), np.float32))
    return top


def load(path, **options):
    return jaxdiff.load(path, devices=jax.devices()[:1], **options)


def run(pipe, prompts=small.PROMPTS, **options):
    return pipe(prompts, key=jax.random.key(0), steps=2, **options)


@pytest.fixture(scope="module")
def plain():
    return run(small.pipeline(small.TINY))


def test_a_directory_is_the_pipeline_it_was_saved_from(folder, plain):
    np.testing.assert_array_equal(run(load(folder / "sd")), plain)


def test_a_lora_is_the_same_live_and_fused(folder, plain):
    live = load(folder / "sd", loras={folder / "lora.safetensors": 0.5})
    fused = load(folder / "sd", loras={folder / "lora.safetensors": 0.5}, fuse=True)
    made = run(live)
    assert np.abs(made.astype(int) - run(fused)).max() <= 1
    assert (made != plain).any()
    np.testing.assert_array_equal(run(live, lora_weights=[0.0]), plain)
    assert live.compiled() == 1


def test_a_word_of_textual_inversion_is_known(folder):
    pipe = load(folder / "sd", textual_inversions=[folder / "word.safetensors"])
    tokenizer = pipe.tokenizers["tokenizer"]
    assert len(tokenizer.tokens("<thing>")) == 2
    assert (run(pipe, ["a <thing>", "a"]) != run(pipe, ["a thing", "a"]))[0].any()


def test_controlnets_are_added(folder):
    pipe = load(folder / "sd", controlnets=[folder / "control"] * 2)
    assert pipe.model.named("controlnet") == ["controlnet_00", "controlnet_01"]


def test_half_precision_is_near_and_decodes_where_it_is_asked_to(folder, plain):
    pipe = load(folder / "sd", dtype="bfloat16")
    assert pipe.params["unet"]["conv_in"]["kernel"].dtype == "bfloat16"
    nets = pipe.model.nets
    assert (nets["unet"].dtype, nets["text_encoder"].dtype, nets["vae"].dtype) == ("bfloat16", "bfloat16", "float32")
    # 8 bits of mantissa, through 2 calls
    assert np.abs(run(pipe).astype(int) - plain).mean() < 4
    assert load(folder / "sd", dtype="bfloat16", decode_dtype="bfloat16").model.nets["vae"].dtype == "bfloat16"


def test_options_of_the_other_kind_are_refused(folder):
    with pytest.raises(ValueError, match="is a directory, which has its own tokenizer: leave tokenizer out"):
        load(folder / "sd", tokenizer=folder / "sd" / "tokenizer")
    with pytest.raises(ValueError, match="is one file, which has no variant: leave variant out"):
        load(folder / "lora.safetensors", variant="fp16")


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_weights_in_8_bits_are_near(folder, plain, kind, monkeypatch):
    monkeypatch.setattr(quantize, "SMALLEST", 1)
    pipe = load(folder / "sd", dtype=kind, loras=[folder / "lora.safetensors"], fuse=True)
    narrow = [name for name in small.TINY if quantize.is_quantized(pipe.params[name])]
    assert narrow == ["unet", "text_encoder"]
    half = load(folder / "sd", dtype="bfloat16", loras=[folder / "lora.safetensors"], fuse=True)
    assert np.abs(run(pipe).astype(int) - run(half)).mean() < 6
    with pytest.raises(ValueError, match=f"LoRAs cannot be added to {kind} weights in each call: pass fuse"):
        load(folder / "sd", dtype=kind, loras=[folder / "lora.safetensors"])


def test_programs_that_were_kept_are_not_traced_again(folder, plain, tmp_path):
    first = load(folder / "sd", programs=tmp_path)
    np.testing.assert_array_equal(run(first), plain)
    second = load(folder / "sd", programs=tmp_path)
    np.testing.assert_array_equal(run(second), plain)
    assert [first.compiled(), second.compiled()] == [1, 0]
    other = load(folder / "sd", programs=tmp_path, clip_skip=1)
    assert (run(other) != plain).any()
    assert other.compiled() == 1


@pytest.fixture
def runs(monkeypatch):
    """Runs of our own by what they are told, without a trainer."""
    monkeypatch.setattr(experiment, "open_run", own.open_run)


def test_a_run_is_quantised_and_its_programs_are_kept(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize, "SMALLEST", 1)
    exact = run(load("text"), ["red", "blue"])
    for dtype, far in (("bfloat16", 6), ("int8", 12)):
        pipe = load("text", dtype=dtype)
        assert pipe.model.nets["unet"].dtype == pipe.model.nets["text_encoder"].dtype == "bfloat16"
        assert quantize.is_quantized(pipe.params["unet"]) == (dtype == "int8")
        assert np.abs(run(pipe, ["red", "blue"]).astype(int) - exact).mean() < far
    kept = [load("text", programs=tmp_path) for _ in range(2)]
    for pipe in kept:
        np.testing.assert_array_equal(run(pipe, ["red", "blue"]), exact)
    assert [pipe.compiled() for pipe in kept] == [1, 0]


def test_a_run_computes_as_it_was_trained(monkeypatch):
    half = dataclasses.replace(own.NETS["class"], dtype="bfloat16")
    monkeypatch.setitem(own.NETS, "class", half)
    monkeypatch.setattr(experiment, "open_run", own.open_run)
    assert load("class").model.nets["unet"] == half
    assert load("class").params["unet"]["conv_in"]["kernel"].dtype == "float32"
    assert load("class", dtype="float32").model.nets["unet"].dtype == "float32"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loras": ["x"]}, "which takes no loras"),
        ({"fuse": True, "variant": "fp16"}, "which takes no fuse, variant"),
        ({"controlnets": ["x"], "vae": "y"}, "which takes no controlnets, vae"),
        ({"clip_skip": 1}, "clip_skip is for CLIP's text encoders"),
        ({"safety": True}, "which takes no safety"),
    ],
)
def test_what_a_run_does_not_take_is_refused(runs, options, words):
    with pytest.raises(ValueError, match=words):
        load("text", **options)


def test_an_outline_is_the_pipelines_without_its_weights(folder, runs, tmp_path):
    for path, options in ((folder / "sd", {}), (folder / "sd", {"clip_skip": 1}), (Path("text"), {})):
        model, kind = loading.outline(path, **options)
        pipe = load(path, **options)
        assert repr(model) == repr(pipe.model)
        assert repr(kind()) == repr(pipe.Options())
    shutil.copytree(folder / "sd", tmp_path / "sd")
    for file in (tmp_path / "sd").rglob("*.safetensors"):
        file.unlink()
    assert repr(loading.outline(tmp_path / "sd")[0]) == repr(load(folder / "sd").model)


def test_a_lora_counts_as_often_as_it_is_given(folder):
    file = folder / "lora.safetensors"
    pipe = load(folder / "sd", loras=[(file, 0.25), file, (file, 0.5)])
    assert [*pipe.lora_weights] == [1.75]
    with pytest.raises(ValueError, match=r"lora\.safetensors has the weight nan: expected a finite number"):
        load(folder / "sd", loras={file: float("nan")})


def without(path, name):
    (path / "model_index.json").write_text(
        json.dumps({k: v for k, v in json.loads((path / "model_index.json").read_text()).items() if k != name})
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float15"}, "unknown dtype 'float15': expected one of float32"),
        ({"loras": ["nothing.safetensors"]}, "nothing.safetensors"),
        ({"controlnets": ["nothing"]}, "nothing/config.json is missing"),
        ({"safety": True}, "no safety_checker"),
    ],
)
def test_what_cannot_be_loaded_is_told(folder, options, words):
    with pytest.raises((ValueError, OSError), match=words):
        load(folder / "sd", **options)


def test_a_directory_that_is_no_model_is_told(folder, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"neither model_index.json .* but notes.txt"):
        jaxdiff.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model directory at nowhere"):
        jaxdiff.load("nowhere")
    directory.save(tmp_path / "sd")
    without(tmp_path / "sd", "unet")
    with pytest.raises(ValueError, match="has no unet but text_encoder, vae"):
        jaxdiff.load(tmp_path / "sd")
    index = {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}
    (tmp_path / "sd" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="SD3Transformer2DModel is not supported: those that work are"):
        jaxdiff.load(tmp_path / "sd")
