"""Autoencoders and ControlNets in one file, by their authors' names and by diffusers'."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, weights
from support import REFERENCE

from jaxdiff.models.autoencoder_kl import AutoencoderConfig, scaled, unscaled
from jaxdiff.pretrained import files, single_file, single_part
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.rules import autoencoder, flatten, from_tensors, to_tensors

SINGLE = load(REFERENCE / "sd_single_file.npz")[0]["sd1"]
VAE, TENSORS = SINGLE["configs"]["vae"], weights(SINGLE["shapes"])
FIXTURE = json.loads((REFERENCE / "configs.json").read_text())["controlnet"]
# heads and groups are the numbers that no tensor tells: 64 channels a head but at least one, and 32
CONTROL = {
    **FIXTURE["config"],
    "block_out_channels": [32, 32],
    "attention_head_dim": [1, 1],
    "norm_num_groups": 32,
}


def same(a, b):
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    for path, x in a.items():
        np.testing.assert_array_equal(x, b[path])


def read(tmp_path, name, tensors, own=lambda: VAE):
    files.write_safetensors(tmp_path / "part.safetensors", tensors)
    return single_part.read(tmp_path / "part.safetensors", name, own=own)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    files.write_safetensors(path, TENSORS)
    return single_file.read(path, configs=SINGLE["configs"])


PREFIX = "first_stage_model."
BARE = {name.removeprefix(PREFIX): x for name, x in TENSORS.items() if name.startswith(PREFIX)}


@pytest.mark.parametrize(
    "tensors",
    [
        TENSORS,
        BARE,
        {f"vae.{name}": x for name, x in BARE.items()},
        {**BARE, "loss.logvar": np.zeros(1), "model_ema.decay": np.zeros(1), "epoch": np.zeros(1)},
    ],
    ids=["within a whole model", "alone", "ComfyUI's prefix", "with leftovers"],
)
def test_an_autoencoder_by_its_authors_names(tmp_path, whole, tensors):
    part = read(tmp_path, "vae", tensors)
    assert part.config == whole.components["vae"].config
    same(part.params, whole.components["vae"].params)


def test_an_autoencoder_by_the_references_names(tmp_path, whole):
    vae = whole.components["vae"]
    part = read(tmp_path, "vae", to_tensors(vae.params, autoencoder.RULES))
    same(part.params, vae.params)


def test_a_tiny_autoencoder_is_known_by_its_layers(tmp_path):
    one = family("AutoencoderTiny")
    shapes = one.shapes(one.config({}), {})
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    part = read(tmp_path, "vae", to_tensors(params, one.rules(one.config({}), {})))
    assert part.kind == "AutoencoderTiny"
    same(part.params, params)


@pytest.mark.parametrize(
    ("name", "tensors", "own", "words"),
    [
        ("vae", {"a": np.zeros(1)}, VAE, "holds no autoencoder"),
        ("vae", BARE, {"_class_name": "AutoencoderTiny"}, "holds an AutoencoderKL and the model has a AutoencoderTiny"),
        ("vae", {"decoder.conv_in.weight": np.zeros(1)}, VAE, "tensors do not fit this model"),
        ("controlnet_00", BARE, VAE, "holds no ControlNet"),
        ("controlnet_00", {"controlnet_cond_embedding.conv_in.weight": np.zeros(1)}, VAE, "no whole ControlNet"),
        ("controlnet_00", {"input_hint_block.0.weight": np.zeros(1)}, VAE, "for text states of None channels"),
        ("adapter", BARE, VAE, "adapter has to be a directory with its config.json"),
    ],
)
def test_what_is_no_such_network(tmp_path, name, tensors, own, words):
    with pytest.raises(ValueError, match=r"part\.safetensors") as error:
        read(tmp_path, name, tensors, own=lambda: own)
    assert words in str(error.value)
    assert len(str(error.value)) < 600


@pytest.fixture(scope="module")
def control():
    """Weights by diffusers' names, and what they are as our parameters."""
    one = family("ControlNetModel")
    net = one.config(CONTROL)
    shapes, rules = one.shapes(net, CONTROL), one.rules(net, CONTROL)
    tensors = weights({name: list(x.shape) for name, x in to_tensors(shapes, rules).items()})
    return net, tensors, from_tensors(tensors, shapes, rules, lambda path, x: x)


def test_a_controlnet_by_the_references_names(tmp_path, control):
    net, tensors, params = control
    part = read(tmp_path, "controlnet_00", tensors)
    assert part.config == net
    same(part.params, params)


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_a_controlnet_by_its_authors_names(tmp_path, control, monkeypatch, prefix):
    net, tensors, params = control
    unet = {k: v for k, v in CONTROL.items() if not k.startswith("conditioning")}
    monkeypatch.setitem(single_file.PRESETS["sd1"], "unet", {**unet, "sample_size": 8})
    named = {f"{prefix}{theirs}": tensors[ours] for theirs, ours in FIXTURE["names"].items()}
    beside = {"first_stage_model.x": np.zeros(1)} if prefix else {}
    part = read(tmp_path, "controlnet_00", {**named, **beside})
    assert part.config == net
    same(part.params, params)


def test_latents_are_scaled_channel_by_channel_as_the_reference_does():
    mean, std, scale = [0.5, -1.0, 0.0, 2.0], [2.0, 4.0, 0.5, 1.0], 0.5
    net = autoencoder.config({"latents_mean": [[[[m]] for m in mean]], "latents_std": std, "scaling_factor": scale})
    z = jnp.arange(24.0).reshape(1, 2, 3, 4)
    np.testing.assert_allclose(scaled(net, z), (np.asarray(z) - np.array(mean)) * scale / np.array(std), rtol=1e-6)
    np.testing.assert_allclose(unscaled(net, z), np.asarray(z) * np.array(std) / scale + np.array(mean), rtol=1e-6)
    np.testing.assert_allclose(scaled(AutoencoderConfig(), z), z * 0.18215, rtol=1e-6)


@pytest.mark.parametrize("more", [{"latents_std": None}, {"latents_std": [1.0] * 3}, {"latents_std": [0.0] * 4}])
def test_half_a_scaling_is_refused(more):
    with pytest.raises(ValueError, match="latents_mean and latents_std have 4 and"):
        autoencoder.config({"latents_mean": [0.0] * 4, **more})
