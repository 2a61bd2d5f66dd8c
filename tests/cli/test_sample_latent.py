"""`jaxdiff sample` with small models of Stable Diffusion's kind, as a user runs it."""

import functools
import json

import jax
import numpy as np
import pytest
from PIL import Image
from pipelines import directory, small
from reference.sd_weights import weights
from safetensors.numpy import save_file

from jaxdiff import loading
from jaxdiff.cli.main import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Models, and what goes with them."""
    top = tmp_path_factory.mktemp("models")
    directory.save(top / "sd")
    for name in ("inpaint", "upscale", "edit"):
        directory.save(top / name, {**small.TINY, "unet": f"tiny unet_{name}"})
    directory.save_part(top / "control", "tiny control")
    where = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    shapes = {f"{where}.lora_A.weight": (2, 8), f"{where}.lora_B.weight": (8, 2)}
    save_file(weights(shapes), top / "lora.safetensors")
    Image.fromarray(small.picture("image")[0]).save(top / "image.png")
    Image.fromarray(small.picture("small", 8)[0]).save(top / "small.png")
    Image.fromarray((small.mask()[0, ..., 0] * 255).astype(np.uint8)).save(top / "mask.png")
    return top


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """One cache for all tests, and one device: eight virtual ones would each make a picture."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    load = functools.partial(loading.load, devices=jax.devices()[:1])
    monkeypatch.setattr("jaxdiff.loading.load", load)


@pytest.fixture
def sample(place, tmp_path, monkeypatch):
    """Runs the program beside the models; gives the pictures' latents and what the PNG carries."""
    monkeypatch.chdir(place)

    def run(model, *args, num=2):
        out, latents = tmp_path / "out.png", tmp_path / "latents.npy"
        common = ["--steps", "2", "--num", str(num), "--out", str(out), "--save-latents", str(latents)]
        main(["sample", "--model", model, *common, *args])
        return np.load(latents), json.loads(Image.open(out).text["parameters"])

    return run


def test_text_to_image(sample, capsys):
    latents, settings = sample("sd", "--prompt", "a (red:1.3) heart", "bird " * 90, "--guidance", "3")
    assert latents.shape == (4, 8, 8, 4)
    assert settings["guidance"] == 3
    assert settings["prompt"][0] == "a (red:1.3) heart"
    assert "does not see" in capsys.readouterr().err
    again, settings = sample("sd", "--prompt", "a (red:1.3) heart", "--guidance", "3", num=1)
    np.testing.assert_allclose(again[0], latents[0], atol=1e-4)
    assert "picture_guidance" not in settings  # of models that edit pictures
    assert (settings["strength"], settings["height"]) == (None, 16)


@pytest.mark.parametrize(
    ("model", "args", "shape"),
    [
        ("sd", "--image image.png --strength 0.5 --height 16", (8, 8)),
        ("sd", "--image image.png --mask mask.png", (8, 8)),
        ("sd", "--image image.png --outpaint 2 6 0 0", (8, 12)),
        ("sd", "--image image.png --source-prompt dog --prompt cat", (8, 8)),
        ("sd", "--upscale 1.5 --prompt cat", (12, 12)),
        ("sd", "--interpolate 5 --prompt cat", (8, 8)),
        ("sd", "--lora lora.safetensors:0.5 --decode tiled", (8, 8)),
        ("sd", "--lora lora.safetensors --fuse --decode sliced", (8, 8)),
        ("sd", "--controlnet control --hint image.png --hint-weight 0.5", (8, 8)),
        ("inpaint", "--image image.png --mask mask.png", (8, 8)),
        ("upscale", "--image small.png --noise-level 10", (8, 8)),
        ("edit", "--image image.png --picture-guidance 2", (8, 8)),
    ],
)
def test_every_task_is_reached(sample, model, args, shape):
    latents, _ = sample(model, *args.split())
    assert latents.shape == (2, *shape, 4)
    assert np.isfinite(latents).all()
    differ = np.abs(latents[0] - latents[1]).max()
    if "--source-prompt" in args:  # an inversion finds the noise of the picture, whatever the key
        assert differ < 1e-3, "rows of a batch are summed in other orders"
    else:
        assert differ > 0.1


def test_kept_programs_make_the_same_pictures(sample, tmp_path):
    first, _ = sample("sd", "--prompt", "cat", "--programs", str(tmp_path / "kept"))
    (kept,) = (tmp_path / "kept").iterdir()
    written = kept.stat().st_mtime_ns
    again, _ = sample("sd", "--prompt", "cat", "--programs", str(tmp_path / "kept"))
    np.testing.assert_array_equal(first, again)
    assert [(path, path.stat().st_mtime_ns) for path in (tmp_path / "kept").iterdir()] == [(kept, written)]


def failure(capsys, *argv):
    with pytest.raises(SystemExit) as error:
        main(["sample", *argv])
    printed = capsys.readouterr()
    return error.value.code, printed.out + printed.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--model nothing", "no model directory at nothing"),
        ("--model control", "control is not a model but one part of one, a ControlNetModel"),
        ("--model sd --lora control", "no LoRA in control"),
        ("--model lora.safetensors", "no single-file checkpoint of Stable Diffusion"),
        ("--model sd --image sd/model_index.json", "is not a picture, or damaged"),
        ("--model sd --mask mask.png", "without the picture"),
        ("--model sd --image small.png --mask mask.png", "mask is 16x16 and image 8x8"),
        ("--model sd --outpaint 1 1 1 1", "give --image"),
        ("--model sd --source-prompt cat", "give --image"),
        ("--model sd --interpolate 4 --num 1", "give 2 or more"),
        ("--model sd --strength 0.5", "pass image"),
        ("--model sd --sampler dimm", "unknown sampler 'dimm'"),
        ("--model sd --safety", "no safety_checker"),
        ("--model sd --hint image.png", "load the model with a ControlNet"),
        ("--model inpaint --image image.png", "pass mask"),
    ],
)
def test_what_cannot_be_is_told(place, capsys, monkeypatch, args, words):
    monkeypatch.chdir(place)
    code, text = failure(capsys, *args.split())
    assert code == 1
    assert words in text
