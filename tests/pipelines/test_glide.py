"""GLIDE: pictures against the published code from the same noise, what it refuses, and the command line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained.glide_files import ARRAYS, INDEX, PROMPTS, write
from reference.sd_weights import noise

from jaxdiff import loading
from jaxdiff.cli import sample
from jaxdiff.pipelines import program
from jaxdiff.pipelines.cascade import Cascade
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained import glide
from jaxdiff.sampling import table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("glide")
    write(path, *INDEX["models"])
    return path


@pytest.fixture(scope="module")
def stages(folder):
    made = {}

    def make(name):
        if name not in made:
            bundle = glide.read(folder / f"{name}.safetensors")
            made[name] = DiffusionPipeline(bundle, devices=jax.devices()[:1])
        return made[name]

    return make


def drawn(side):
    return noise("drawn", (2, 3, side, side)).transpose(0, 2, 3, 1) * np.float32(1.7)


def picture(name, side):
    return ((noise(name, (2, side, side, 3)) + 1) * 127.5).round().astype(np.uint8)


def hole(side):
    mask = np.zeros((2, side, side, 1), np.float32)
    mask[:, :, side // 2 :] = 1
    return mask


CALLS = {
    "base": (16, {"steps": 5, "guidance": 3.0}),
    "upsample": (32, {"steps": 4, "image": picture("small", 16)}),
    "base-inpaint": (16, {"steps": 5, "guidance": 3.0, "image": picture("image", 16), "mask": hole(16)}),
    "upsample-inpaint": (
        32,
        {
            "steps": 4,
            "image": picture("small", 16),
            "original": picture("image", 32),
            "mask": hole(32),
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.heavy] if n != "base" else []) for n in CALLS])
def test_pictures_agree_and_nothing_compiles_again(stages, monkeypatch, name):
    side, options = CALLS[name]
    same = lambda keys, *shape: jnp.asarray(drawn(side)[: len(keys)])
    monkeypatch.setattr(program, "unit_noise", same)
    monkeypatch.setattr(table, "normal", same)
    pipe = stages(name)
    call = lambda prompts, key, **more: pipe(prompts, key=key, init_noise=drawn(side), **{**options, **more})
    made = call(PROMPTS, jax.random.key(0))
    error = np.abs(made.astype(float) - 255 * (ARRAYS[name] / 65535)).max()
    print(f"{name}: {error:.2f} / 255")
    assert error < 2  # 0.5 for the rounding to 8 bits, and what sums in another order become over the calls
    before = pipe.compiled()
    other = call(["two", "fish"], jax.random.key(1), **({"guidance": 2.0} if "guidance" in options else {}))
    assert pipe.compiled() == before
    assert not np.array_equal(made, other)


@pytest.mark.heavy
def test_two_stages_fill_one_after_the_other(stages):
    both = Cascade([stages("base-inpaint"), stages("upsample-inpaint")])
    image = picture("image", 32)
    given = {"image": image, "mask": hole(32), "steps": 3, "guidance": 2.0}
    made = both(PROMPTS, key=jax.random.key(3), **given)
    assert made.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(made[:, :, :16], image[:, :, :16])
    counts = [stage.compiled() for stage in both.stages]
    both(["other", "words"], key=jax.random.key(4), **given)
    assert [stage.compiled() for stage in both.stages] == counts


def test_guidance_is_of_the_first_stage_alone(stages, monkeypatch):
    both, seen = Cascade([stages("base"), stages("upsample")]), []

    def call(pipe, prompts, **given):
        seen.append(given.get("guidance"))
        return np.zeros((1, 16, 16, 3), np.float32)

    monkeypatch.setattr(DiffusionPipeline, "__call__", call)
    both(["a"], key=jax.random.key(0), guidance=4.0)
    both(["a"], key=jax.random.key(0))
    assert seen == [4.0, None, None, None]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("base", {"noise_level": 7}, "this model takes no noise_level"),
        ("base", {"original": picture("image", 16)}, "this model takes no original"),
        ("upsample", {}, "this model enlarges a picture: pass image"),
        ("upsample", {"image": picture("small", 16), "noise_level": 7}, "this model takes no noise_level"),
        ("base-inpaint", {}, "fills a part of a picture: pass image and mask"),
        ("base-inpaint", {"image": picture("image", 16)}, "pass mask"),
        ("upsample-inpaint", {"image": picture("small", 16)}, "pass mask"),
        ("upsample-inpaint", {"image": picture("small", 16), "mask": hole(32)}, "pass original"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_compiles(stages, name, options, says):
    pipe = stages(name)
    before = pipe.compiled()
    with pytest.raises(ValueError, match=r"model|pass") as error:
        pipe(PROMPTS, key=jax.random.key(0), **options)
    assert says in str(error.value)
    assert pipe.compiled() == before


def test_options_are_those_of_the_model(stages):
    fields = {name: {f.name: f.default for f in dataclasses.fields(stages(name).Options)} for name in CALLS}
    assert {name: known["guidance"] for name, known in fields.items()} == {
        "base": 3.0,
        "upsample": None,
        "base-inpaint": 5.0,
        "upsample-inpaint": None,
    }
    assert "original" in fields["upsample"]
    assert "chunks" not in fields["base"]  # of CLIP
    assert {"negative", "mask", "strength"} <= fields["base"].keys()


def test_a_prompt_that_is_too_long_says_what_is_not_seen(stages):
    lost = stages("base").cut("a red heart " * 20)
    assert lost.strip()
    assert ("a red heart " * 20).endswith(lost)


def test_help_shows_its_own_options(folder, capsys):
    with pytest.raises(SystemExit):
        sample.main(["--model", str(folder / "base.safetensors"), "--help"])
    shown = capsys.readouterr().out
    assert "--negative-prompt" in shown
    assert "--tokenizer" in shown
    assert "--clip-skip" not in shown
    assert "--noise-level" not in shown


@pytest.mark.heavy
def test_the_command_line_makes_pictures_of_two_stages(folder, tmp_path):
    told = ["--prompt", "a red heart", "--num", "1", "--steps", "2", "--out", str(tmp_path / "one.png")]
    sample.main(["--model", str(folder / "base.safetensors"), "--then", str(folder / "upsample.safetensors"), *told])
    assert (tmp_path / "one.png").is_file()


def test_what_glide_has_no_place_for_is_refused(folder):
    base = folder / "base.safetensors"
    with pytest.raises(ValueError, match="takes no prediction: leave it out"):
        loading.load(base, prediction="epsilon")
    with pytest.raises(ValueError, match="stage 2 makes pictures of its own"):
        loading.load(base, then=[folder / "base-inpaint.safetensors"])
