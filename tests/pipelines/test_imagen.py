"""Stages of DeepFloyd IF against the reference's pipelines, from the same noise; and what they refuse."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small
from pipelines.small import component
from reference.sd_weights import load, noise

from jaxdiff.data import tokenizer_unigram
from jaxdiff.models.text_t5 import T5Config
from jaxdiff.pipelines import program
from jaxdiff.pipelines.cascade import Cascade
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained.read import Bundle
from jaxdiff.sampling import table

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
INDEX, PICTURES = load(REFERENCE / "imagen_pipeline.npz")
PROMPTS = ["A red heart", "seven birds!"]
TOLD = {"steps": 5, "guidance": 2.0, "negative": "ugly"}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words")
    (path / "tokenizer.json").write_bytes(bytes(np.load(REFERENCE / "t5.npz")["json"]))
    return tokenizer_unigram.read(path)


@functools.cache
def part(name):
    return component(INDEX["parts"][name])


def bundle(words, stage):
    kind = {"if one": "IFPipeline", "if two": "IFSuperResolutionPipeline"}[stage]
    schedulers = {"scheduler": INDEX["schedulers"][stage]}
    schedulers |= {"image_noising_scheduler": INDEX["schedulers"]["low"]} if stage == "if two" else {}
    parts = {"unet": part(stage), "text_encoder": part("text_encoder")}
    index = {"_class_name": kind, "tokenizer": ["transformers", "T5Tokenizer"]}
    index |= {name: ["diffusers", one.kind] for name, one in parts.items()}
    index |= {name: ["diffusers", "DDPMScheduler"] for name in schedulers}
    return Bundle(kind, index, parts, {"tokenizer": words}, schedulers, guidance=7.0)


@pytest.fixture(scope="module")
def stages(words):
    made = {}

    def make(stage):
        if stage not in made:
            made[stage] = DiffusionPipeline(bundle(words, stage), devices=jax.devices()[:1])
        return made[stage]

    return make


def picture(name, side):
    return ((noise(name, (2, side, side, 3)) + 1) * 127.5).round().astype(np.uint8)


def drawn(side):
    return noise("drawn", (2, 3, side, side)).transpose(0, 2, 3, 1) * np.float32(1.7)


CALLS = {
    "text": ("if one", 8, {}),
    "image": ("if one", 8, {"image": picture("image", 8), "strength": 0.6}),
    "larger": ("if two", 16, {"image": picture("small", 8), "noise_level": 250}),
    "larger image": (
        "if two",
        16,
        {"image": picture("small", 8), "original": picture("image", 16), "noise_level": 20, "strength": 0.6},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.heavy] if n != "text" else []) for n in CALLS])
def test_pictures_agree(stages, monkeypatch, name):
    stage, side, options = CALLS[name]
    same = lambda keys, *shape: jnp.asarray(drawn(side)[: len(keys)])
    monkeypatch.setattr(program, "unit_noise", same)
    monkeypatch.setattr(table, "normal", same)
    pipe = stages(stage)
    made = pipe(PROMPTS, key=jax.random.key(0), init_noise=drawn(side), **TOLD, **options)
    error = np.abs(made.astype(float) - 255 * (PICTURES[name] / 65535)).max()
    print(f"{name}: {error:.2f} / 255")
    # 0.5 for the rounding to 8 bits, and what sums in another order become over the calls
    assert error < 2
    before = pipe.compiled()
    again = {**options, "noise_level": 3} if "noise_level" in options else options
    other = pipe(["two", "fish"], key=jax.random.key(1), init_noise=drawn(side), **{**TOLD, "guidance": 3.0, **again})
    assert pipe.compiled() == before
    assert not np.array_equal(made, other)


@pytest.mark.heavy
def test_a_cascade_is_its_stages_one_after_another(stages):
    both = Cascade([stages("if one"), stages("if two")])
    made = both(PROMPTS, key=jax.random.key(3), steps=3)
    assert made.shape == (2, 16, 16, 3)
    assert made.dtype == np.uint8
    counts = [stage.compiled() for stage in both.stages]
    np.testing.assert_array_equal(both(PROMPTS, key=jax.random.key(3), steps=3), made)
    both(["other", "words"], key=jax.random.key(4), steps=3, guidance=2.0)
    assert [stage.compiled() for stage in both.stages] == counts


@pytest.mark.heavy
def test_what_the_mask_leaves_stays_as_it_was(stages):
    image, mask = picture("image", 16), np.zeros((2, 16, 16, 1), np.float32)
    mask[:, :, 8:] = 1
    given = {"image": picture("small", 8), "original": image, "mask": mask, "noise_level": 20}
    made = stages("if two")(PROMPTS, key=jax.random.key(5), steps=3, **given)
    assert np.abs(made[:, :, :8].astype(int) - image[:, :, :8]).max() <= 1
    assert np.abs(made[:, :, 8:].astype(int) - image[:, :, 8:]).max() > 20
    small_mask = mask[:, ::2, ::2]
    made = stages("if one")(PROMPTS, key=jax.random.key(6), steps=3, image=picture("image", 8), mask=small_mask)
    assert np.abs(made[:, :, :4].astype(int) - picture("image", 8)[:, :, :4]).max() <= 1


@pytest.mark.heavy
def test_stable_diffusions_upscaler_is_a_third_stage(stages):
    parts = {**small.TINY, "unet": "tiny unet_upscale"}
    upscaler = small.pipeline(parts, index={"max_noise_level": 49})
    three = Cascade([stages("if one"), stages("if two"), upscaler])
    made = three(["a red heart"], key=jax.random.key(7), steps=2)
    assert made.shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("stage", "options", "words_of"),
    [
        ("if one", {"noise_level": 7}, "this model takes no noise_level"),
        ("if one", {"original": picture("image", 8)}, "this model takes no original"),
        ("if two", {}, "this model enlarges a picture: pass image"),
        ("if two", {"image": picture("small", 8), "noise_level": 1000}, "this model knows 0 to 999"),
        ("if two", {"image": picture("small", 8), "strength": 0.5}, "pass original"),
        ("if two", {"image": picture("small", 8), "mask": np.ones((2, 16, 16, 1))}, "pass original"),
        ("if two", {"image": np.zeros((1, 8, 8, 3), np.float32)}, "expected [2, height, width, 3]"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_compiles(stages, stage, options, words_of):
    pipe = stages(stage)
    before = pipe.compiled()
    with pytest.raises(ValueError, match=r"model|expected|pass") as error:
        pipe(PROMPTS, key=jax.random.key(0), **options)
    assert words_of in str(error.value)
    assert pipe.compiled() == before


def test_a_long_prompt_says_what_is_not_seen(stages):
    words = "red heart " * 60
    lost = stages("if one").cut(words)
    assert lost
    assert words.strip().endswith(lost)


def test_defaults_and_options_are_those_of_the_stage(stages):
    fields = {stage: {f.name: f.default for f in dataclasses.fields(stages(stage).Options)} for stage in CALLS_STAGES}
    assert fields["if two"]["noise_level"] == 250
    assert "noise_level" not in fields["if one"]
    assert {"mask", "strength", "negative"} <= fields["if one"].keys()
    assert "chunks" not in fields["if one"]  # of CLIP


CALLS_STAGES = ("if one", "if two")


def test_a_stage_without_text_says_what_to_add(words):
    whole = bundle(words, "if two")
    alone = dataclasses.replace(whole, components={"unet": whole.components["unet"]}, tokenizers={})
    with pytest.raises(ValueError, match="has no text_encoder"):
        DiffusionPipeline(alone)


def test_stages_that_do_not_follow_each_other_are_refused(stages):
    one, two = stages("if one"), stages("if two")
    cases = (([], "no stage"), ([two], "enlarges"), ([one, one], "stage 2 makes"), ([two, one], "enlarges"))
    for wrong, words_of in cases:
        with pytest.raises(ValueError, match=words_of):
            Cascade(wrong)


def test_a_stage_of_another_size_is_refused(stages, monkeypatch):
    one, two = stages("if one"), stages("if two")
    monkeypatch.setattr(two, "_own", 8)
    with pytest.raises(ValueError, match="stage 2 makes pictures of 8x8, and the one before it of 8x8"):
        Cascade([one, two])


def test_t5_reads_77_tokens_of_a_prompt():
    assert T5Config().length == 77
