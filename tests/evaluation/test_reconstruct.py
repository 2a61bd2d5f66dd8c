"""Pictures through an autoencoder."""

import contextlib
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from reference.sd_weights import load, noise, weights

from jaxdiff.evaluation.config import EvaluateConfig, command
from jaxdiff.evaluation.pictures import Pictures, folder
from jaxdiff.evaluation.reconstruct import reconstructor
from jaxdiff.evaluation.run import evaluate
from jaxdiff.pretrained import files

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
INDEX, _ = load(REFERENCE / "sd_autoencoder.npz")


@pytest.fixture
def model(tmp_path):
    """A model's directory, of which only vae/ is there."""
    entry = INDEX["sd"]
    path = tmp_path / "model" / "vae"
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({**entry["config"], "_class_name": entry["class"]}))
    files.write_safetensors(path / "diffusion_pytorch_model.safetensors", weights(entry["shapes"]))
    return tmp_path / "model"


def silent(what, total):
    return contextlib.nullcontext(lambda done: None)


def test_reconstructions_are_measured_against_what_went_in(model, tmp_path):
    (tmp_path / "real").mkdir()
    for i in range(5):
        pixels = ((noise(f"picture{i}", (16, 16, 3)) + 1) * 127.5).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "real" / f"{'edcba'[i]}.png")
    config = EvaluateConfig(
        autoencoder=model,
        reference=str(tmp_path / "real"),
        workdir=tmp_path / "out",
        metrics=("psnr", "ssim"),
        batch_size=1,
        num=4,
        resamples=0,
    )
    evaluate(config, silent, lambda text: None)
    made, real = folder(tmp_path / "out" / "pictures"), folder(tmp_path / "real")
    assert made.count == 4
    error = [np.mean((made.read(i).astype(float) - real.read(i)) ** 2) for i in range(4)]
    found = json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]
    np.testing.assert_allclose(found["PSNR"]["value"], np.mean(10 * np.log10(255**2 / np.array(error))))


def test_what_is_no_autoencoder_is_named(model):
    with pytest.raises(ValueError, match="does not halve 1 times"):
        reconstructor(model, Pictures("p", (16, 17), 1, lambda i: None))
    clip = load(REFERENCE / "sd_clip.npz")[0]["large"]
    (model / "vae" / "config.json").write_text(json.dumps({**clip["config"], "_class_name": clip["class"]}))
    files.write_safetensors(model / "vae" / "model.safetensors", weights(clip["shapes"]))
    (model / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"is a CLIPTextModel.*, no autoencoder"):
        reconstructor(model, Pictures("p", (16, 16), 1, lambda i: None))


def test_the_command_line_of_a_config():
    config = EvaluateConfig(model="runs/my run", metrics=("kid",), num=9)
    assert command(config) == "jaxdiff evaluate --model 'runs/my run' --metrics kid --num 9"
