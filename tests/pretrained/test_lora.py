"""LoRA files of diffusers, PEFT and kohya against what diffusers makes of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lora_files import component
from reference.sd_weights import load, noise, weight
from safetensors.numpy import save_file
from support import REFERENCE, close

from jaxdiff.metrics.speed import compilations
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNet, with_sizes
from jaxdiff.pretrained import files, lora
from jaxdiff.pretrained.rules import flatten
from jaxdiff.typing import Cond

INDEX, ARRAYS = load(REFERENCE / "sd_lora.npz")
UNETS, _ = load(REFERENCE / "sd_unet.npz")
TOKENS = jnp.array([[1, 5, 7, 98, 99, 99, 0, 0], [1, 5, 80, 81, 12, 98, 3, 99]])


@pytest.fixture(scope="module")
def unets():
    return {
        case: {"unet": component("UNet2DConditionModel", UNETS[case]["config"], UNETS[case]["shapes"])}
        for case in ("sd1", "sdxl")
    }


@pytest.fixture(scope="module")
def run(unets):
    x = jnp.asarray(noise("x", (2, 4, 8, 8)).transpose(0, 2, 3, 1))
    cond = Cond(context=jnp.asarray(noise("context", (2, 5, 24))))
    unet = unets["sd1"]["unet"]
    apply = jax.jit(lambda params: UNet(unet.config).apply({"params": params}, x, jnp.array([17.0, 801.0]), cond))
    return lambda loras, scales: apply(lora.merge(unet.params, loras, scales)).transpose(0, 3, 1, 2)


def saved(kind, path, change=lambda tensors: tensors):
    shapes = INDEX[kind]["shapes"]
    tensors = {n: np.array(3, np.float32) if n.endswith("alpha") else weight(n, tuple(s)) for n, s in shapes.items()}
    save_file(change(tensors), path / f"{kind}.safetensors")
    return path / f"{kind}.safetensors"


def test_sd1_files_agree(unets, run, tmp_path):
    read = {kind: lora.read(saved(kind, tmp_path), unets["sd1"])["unet"] for kind in ("peft", "old", "kohya")}
    for kind, one in read.items():
        close(run([one], [0.7]), ARRAYS[kind])
    close(run([read["kohya"], read["peft"]], [0.7, -0.4]), ARRAYS["both"])


def test_another_weight_compiles_nothing(unets, tmp_path):
    one = lora.read(saved("peft", tmp_path), unets["sd1"])["unet"]
    merge = jax.jit(lora.merge)
    params = unets["sd1"]["unet"].params
    first = merge(params, [one], np.zeros(1, np.float32))
    jax.tree.map(np.testing.assert_array_equal, first, params)
    with compilations() as again:
        merge(params, [one], np.ones(1, np.float32))
    assert again.count == 0


def test_kohya_with_original_names_agrees(unets, tmp_path):
    read = lora.read(saved("kohya_xl", tmp_path), unets["sdxl"])["unet"]
    unet = unets["sdxl"]["unet"]
    pooled = with_sizes(jnp.asarray(noise("pooled", (2, 20))), jnp.full((2, 6), 8.0), 8)
    cond = Cond(context=jnp.asarray(noise("context", (2, 5, 24))), pooled=pooled)
    x = jnp.asarray(noise("x", (2, 4, 8, 8)).transpose(0, 2, 3, 1))
    fused = lora.merge(unet.params, [read], [0.7])
    y = jax.jit(UNet(unet.config).apply)({"params": fused}, x, jnp.array([17.0, 801.0]), cond)
    close(y.transpose(0, 3, 1, 2), ARRAYS["kohya_xl"])


def test_text_encoder_agrees(tmp_path):
    text = component("CLIPTextModel", INDEX["text"]["config"], INDEX["text"]["tensors"])
    read = lora.read(saved("text", tmp_path), {"text_encoder": text})["text_encoder"]
    fused = lora.merge(text.params, [read], [0.7])
    close(jax.jit(ClipText(text.config).apply)({"params": fused}, TOKENS)[0], ARRAYS["text"])


def test_written_and_read_again(unets, tmp_path):
    """Kohya's layout has the scale; diffusers' takes names with 'lora' alone, so that there the factors have it."""
    read = lora.read(saved("kohya", tmp_path), unets["sd1"])
    again = {}
    for layout in ("diffusers", "kohya"):
        lora.write(tmp_path / f"{layout}.safetensors", read, unets["sd1"], layout)
        again[layout] = lora.read(tmp_path / f"{layout}.safetensors", unets["sd1"])
    jax.tree.map(np.testing.assert_array_equal, again["kohya"], read)
    assert all("lora" in name for name in files.read_safetensors(tmp_path / "diffusers.safetensors"))
    for path, factors in read["unet"].items():
        own = again["diffusers"]["unet"][path]
        np.testing.assert_array_equal(own["down"], factors["down"])
        np.testing.assert_array_equal(own["up"], factors["up"] * factors["scale"])
        assert own["scale"] == 1


def test_alpha_of_adapter_config(unets, tmp_path):
    strip = lambda tensors: {n.replace("unet.", "base_model.model."): x for n, x in tensors.items()}
    saved("peft", tmp_path, strip).rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 5}))
    read = lora.read(tmp_path, unets["sd1"])
    assert {float(factors["scale"]) for factors in read["unet"].values()} == {2.5}
    assert len(read["unet"]) == len(INDEX["peft"]["shapes"]) // 2


def test_scales_are_alpha_over_rank(unets, tmp_path):
    for kind, expected in (("peft", 1.0), ("kohya", 1.5)):
        read = lora.read(saved(kind, tmp_path), unets["sd1"])["unet"]
        assert {float(factors["scale"]) for factors in read.values()} == {expected}
        kernels = flatten(unets["sd1"]["unet"].params)
        assert all(f["down"].shape[:-1] == kernels[path].shape[:-1] for path, f in read.items())
