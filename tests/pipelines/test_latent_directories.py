"""Latent diffusion's models and the depth model against the reference's pipelines, from the same noise."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small
from reference.sd_weights import load, noise

from jaxdiff.cli import sample
from jaxdiff.data.tokenizer_bert import WordPiece
from jaxdiff.models.text_bert import BertText
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained import bert_tokenizer
from jaxdiff.pretrained.files import read_weights
from jaxdiff.pretrained.read import Bundle, read_directory
from jaxdiff.pretrained.write import write_directory

INDEX, ARRAYS = load(pathlib.Path(__file__).parents[1] / "reference" / "latent.npz")
WORDS = WordPiece({token: n for n, token in enumerate(INDEX["vocabulary"])})
PROMPTS = INDEX["prompts"]
MODELS = {
    "text": ("LDMTextToImagePipeline", {"vqvae": "vae", "bert": "bert", "unet": "unet"}),
    "plain": ("LDMPipeline", {"vqvae": "vqvae", "unet": "unet_pixels"}),
    "larger": ("LDMSuperResolutionPipeline", {"vqvae": "vqvae", "unet": "unet_larger"}),
    "depth": (
        "StableDiffusionDepth2ImgPipeline",
        {"vae": "vae", "text_encoder": "text_encoder", "unet": "unet_depth"},
    ),
}


@functools.cache
def bundle(name):
    kind, named = MODELS[name]
    parts = {}
    for role, part in named.items():
        entry = INDEX["parts"][part]
        scaled = {"scaling_factor": 1.0} if name == "larger" and role == "vqvae" else {}
        parts[role] = small.component({**entry, "config": {**entry["config"], **scaled}})
    words = {"text": WORDS, "depth": small.tokenizer()}.get(name)
    words = {"tokenizer": words} if words else {}
    index = {"_class_name": kind, "scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {role: ["diffusers", part.kind] for role, part in parts.items()}
    if words:
        index["tokenizer"] = ["transformers", "BertTokenizer" if name == "text" else "CLIPTokenizer"]
    guidance = None if name == "text" else 7.5
    return Bundle(kind, index, parts, words, {"scheduler": INDEX["scheduler"]}, guidance=guidance)


@pytest.fixture(scope="module")
def pipes():
    return functools.cache(lambda name: DiffusionPipeline(bundle(name), devices=jax.devices()[:1]))


def first(channels):
    return noise("first", (2, channels, 8, 8)).transpose(0, 2, 3, 1) * np.float32(1.7)


def depth_map():
    return np.repeat(((noise("depth", (2, 12, 12, 1)) + 1) * 127.5).round().astype(np.uint8), 3, -1)


GUIDED = {"guidance": INDEX["guidance"], "negative": "ugly", "depth": depth_map(), "image": small.picture("image")}
CALLS = {
    "text": ("text", {"guidance": INDEX["guidance"], "init_noise": first(4)}),
    "plain": ("plain", {"init_noise": first(3)}),
    "larger": ("larger", {"image": small.picture("small", 8), "init_noise": first(3)}),
    "depth": ("depth", {**GUIDED, "init_noise": first(4)}),
    "depth whole": ("depth", {**GUIDED, "init_noise": first(4), "strength": 1.0}),
}


def test_tokens_are_those_of_the_reference():
    for caption, expected in zip(INDEX["captions"], ARRAYS["tokens"], strict=True):
        np.testing.assert_array_equal(WORDS.encode(caption, 77), expected, err_msg=repr(caption))


def test_a_long_text_is_cut_and_the_end_is_told():
    assert WORDS.cut("a red heart, uber", 6) == ("a red heart ,", "uber")
    assert WORDS.encode("a red heart, uber", 6)[-1] == WORDS.ids["[SEP]"]


def test_text_states_agree():
    part = bundle("text").components["bert"]
    tokens = jnp.asarray(np.stack([WORDS.encode(prompt, 77) for prompt in PROMPTS]))
    states = jax.jit(BertText(part.config).apply)({"params": part.params}, tokens)
    assert np.abs(states - ARRAYS["states"]).max() < 1e-4 * np.abs(ARRAYS["states"]).max()


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.heavy) for c in CALLS])
def test_pictures_agree(pipes, case):
    name, options = CALLS[case]
    made = pipes(name)(PROMPTS if name in ("text", "depth") else [""] * 2, key=jax.random.key(0), steps=5, **options)
    error = np.abs(made.astype(float) - 255 * (ARRAYS[case] / 65535)).max()
    print(f"{case}: {error:.2f} / 255")
    assert error < 0.8  # 0.5 for the rounding to 8 bits, and what sums in another order become


@pytest.mark.heavy
def test_depth_by_itself_makes_a_picture_and_compiles_once_for_all_maps(pipes):
    pipe, told = pipes("depth"), {"steps": 3, "height": 16, "width": 16}
    made = pipe(["a"] * 2, key=jax.random.key(0), depth=depth_map(), **told)
    before = pipe.compiled()
    other = pipe(["a"] * 2, key=jax.random.key(0), depth=255 - depth_map(), **told)
    assert pipe.compiled() == before
    assert not np.array_equal(made, other)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("depth", {}, "pass depth, a picture of how far away"),
        ("depth", {"depth": np.zeros((2, 8, 8, 3), np.uint8)}, "depth is the same everywhere"),
        ("depth", {"depth": np.zeros((2, 8, 8, 1), np.float32)}, "depth is float32"),
        ("text", {"depth": depth_map()}, "this model takes no depth: only the depth model"),
        ("text", {"chunks": 2}, "this model takes no chunks"),
        ("larger", {}, "this model enlarges a picture: pass image"),
        ("larger", {"image": small.picture("small", 8), "noise_level": 3}, "this model takes no noise_level"),
        ("plain", {"negative": "ugly"}, "this model takes no negative"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_compiles(pipes, name, options, says):
    before = pipes(name).compiled()
    with pytest.raises(ValueError, match=r"depth|model") as error:
        pipes(name)(["a"] * 2, key=jax.random.key(0), **options)
    assert says in str(error.value)
    assert pipes(name).compiled() == before


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.heavy] if n != "text" else []) for n in MODELS])
def test_directories_are_read_and_written_back_as_they_were(tmp_path, name):
    write_directory(bundle(name), tmp_path / "one")
    back = read_directory(tmp_path / "one")
    write_directory(back, tmp_path / "two")
    assert {n: c.config for n, c in back.components.items()} == {
        n: c.config for n, c in bundle(name).components.items()
    }
    assert back.tokenizers == bundle(name).tokenizers
    assert back.guidance == bundle(name).guidance
    for role in MODELS[name][1]:
        ours, theirs = read_weights(tmp_path / "two" / role), read_weights(tmp_path / "one" / role)
        assert ours.keys() == theirs.keys()
        for tensor in ours:
            np.testing.assert_array_equal(np.asarray(ours[tensor]), np.asarray(theirs[tensor]))


def test_the_depth_estimator_is_left_out_and_said(tmp_path):
    write_directory(bundle("depth"), tmp_path / "one")
    index = json.loads((tmp_path / "one" / "model_index.json").read_text())
    index["depth_estimator"] = ["transformers", "DPTForDepthEstimation"]
    index["feature_extractor"] = ["transformers", "DPTFeatureExtractor"]
    (tmp_path / "one" / "model_index.json").write_text(json.dumps(index))
    back = read_directory(tmp_path / "one")
    assert back.skipped == {"depth_estimator": "the class DPTForDepthEstimation is not supported"}


@pytest.mark.heavy
def test_help_shows_its_own_options(tmp_path, capsys):
    write_directory(bundle("depth"), tmp_path / "one")
    with pytest.raises(SystemExit):
        sample.main(["--model", str(tmp_path / "one"), "--help"])
    assert "--depth" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a\n", "lacks"), (b"[CLS]\n[PAD]\n[SEP]\n[UNK]\n", "expected the first"), (b"\xff\n", "is not UTF-8")],
)
def test_other_vocabularies_are_refused(tmp_path, content, says):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        bert_tokenizer.read(tmp_path)
