"""CLIP image encoder, safety checker, T2I- and IP-adapters against the reference libraries."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights
from safetensors.numpy import load_file, save_file
from support import REFERENCE, close, same_tensors, to_device

from jaxdiff.metrics.speed import compilations
from jaxdiff.models.adapter import Adapter
from jaxdiff.models.image_clip import ClipImage, SafetyChecker, prepare
from jaxdiff.models.unet import UNet, with_sizes
from jaxdiff.pretrained import ip_adapter
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import TensorError, from_tensors, to_tensors
from jaxdiff.typing import Cond

INDEX, ARRAYS = load(REFERENCE / "sd_image.npz")
UNETS, _ = load(REFERENCE / "sd_unet.npz")
T = jnp.array([17.0, 801.0])


def picture(name, shape):
    return jnp.asarray(noise(name, shape).transpose(0, 2, 3, 1))


def first(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def component(kind, entry, tensors=None):
    one, json = family(kind), entry["config"]
    net = one.config(json)
    rules = one.rules(net, json)
    tensors = tensors or weights(entry["shapes"])
    params = from_tensors(tensors, one.shapes(net, json), rules, to_device)
    return Component(kind, json, net, params)


def test_image_encoder_agrees():
    image = component("CLIPVisionModelWithProjection", INDEX["image"])
    run = jax.jit(lambda skip: ClipImage(image.config).apply({"params": image.params}, PIXELS, skip), static_argnums=0)
    PIXELS = picture("pixels", (6, 3, 16, 16))
    close(run(0)[1], ARRAYS["image/vector"])
    close(run(1)[0], ARRAYS["image/earlier"])
    rules = family(image.kind).rules(image.config, image.json)
    same_tensors(to_tensors(image.params, rules), weights(INDEX["image"]["shapes"]))
    with pytest.raises(ValueError, match="a picture of 8x16, expected 16x16"):
        ClipImage(image.config).apply({"params": image.params}, PIXELS[:, :8])


def test_safety_checker_agrees():
    tensors = weights(INDEX["safety"]["shapes"])
    tensors["concept_embeds_weights"] = 0.5 + np.float32(0.15) * noise("limits", (17,))
    tensors["special_care_embeds_weights"] = 0.2 + np.float32(0.1) * noise("special limits", (3,))
    checker = component("StableDiffusionSafetyChecker", INDEX["safety"], tensors)
    flags = SafetyChecker(checker.config).apply({"params": checker.params}, picture("pixels", (6, 3, 16, 16)))
    expected = ARRAYS["safety/flags"] > 0
    assert 0 < expected.sum() < 6
    np.testing.assert_array_equal(flags, expected)
    # the published file nests the encoder once more
    nested = {n.replace("vision_model.", "vision_model.vision_model."): x for n, x in tensors.items()}
    again = component("StableDiffusionSafetyChecker", INDEX["safety"], nested)
    jax.tree.map(np.testing.assert_array_equal, again.params, checker.params)
    rules = family(checker.kind).rules(checker.config, checker.json)
    same_tensors(to_tensors(checker.params, rules), nested)


def test_prepare_centres_and_normalises():
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 60)[None, None, :, None], (1, 30, 60, 3))
    out = prepare(ramp, 10)
    assert out.shape == (1, 10, 10, 3)
    back = out * jnp.array([0.26862954, 0.26130258, 0.27577711])[None, None, None]
    back = back + jnp.array([0.48145466, 0.4578275, 0.40821073])[None, None, None]
    np.testing.assert_allclose(back.mean(), 0.5, atol=1e-3)
    np.testing.assert_allclose(np.diff(back[0, 5, :, 0]), 3 / 59, atol=1e-3)  # three source pixels each


@pytest.mark.parametrize(("name", "shape", "size"), [("down", (12, 9), 14), ("up", (4, 4), 32)])
def test_prepare_agrees(name, shape, size):
    grid = np.kron((noise(f"prepare {name}", (*shape, 3)) + 1) / 2, np.ones((5, 5, 1)))
    grid = (np.pad(grid, ((2, 2), (2, 2), (0, 0)), "edge") * 255).round().astype(np.float32)
    ours = prepare(jnp.asarray(grid[None] / 255), size)[0].transpose(2, 0, 1)
    # one step of 8 bits, where fixed and floating point round apart; 0.26 is the smallest standard deviation
    np.testing.assert_allclose(ours, ARRAYS[f"prepare {name}/pixels"], atol=1.01 / 255 / 0.26)


@pytest.mark.parametrize(("name", "case"), [("adapter", "sd1"), ("adapter_xl", "sdxl")])
def test_t2i_adapters_agree(name, case):
    unet, adapter = component("UNet2DConditionModel", UNETS[case]), component("T2IAdapter", INDEX[name])
    rules = family("T2IAdapter").rules(adapter.config, adapter.json)
    same_tensors(to_tensors(adapter.params, rules), weights(INDEX[name]["shapes"]))
    hint = picture("hint", (2, 3, 16, 16))
    features = [0.8 * f for f in jax.jit(Adapter(adapter.config).apply)({"params": adapter.params}, hint)]
    close(first(features[0]), ARRAYS[f"{name}/first"])
    cond = Cond(context=jnp.asarray(noise("context", (2, 5, 24))))
    if case == "sdxl":
        features.append(picture("mid", (2, 64, 4, 4)))
        pooled = with_sizes(jnp.asarray(noise("pooled", (2, 20))), jnp.full((2, 6), 8.0), 8)
        cond = Cond(context=cond.context, pooled=pooled)
    run = jax.jit(
        lambda features: UNet(unet.config).apply(
            {"params": unet.params}, X, T, dataclasses.replace(cond, features=tuple(features))
        )
    )
    X = picture("x", (2, 4, 8, 8))
    close(first(run(features)), ARRAYS[f"{name}/y"])
    with pytest.raises(ValueError, match="1 features for 2 levels and the middle"):
        run(features[:1])
    with pytest.raises(ValueError, match="the hint is 9x16, both sides must be multiples"):
        Adapter(adapter.config).apply({"params": adapter.params}, jnp.zeros((1, 9, 16, 3)))


def test_ip_adapter_agrees(tmp_path):
    unet = component("UNet2DConditionModel", UNETS["sd1"])
    tensors = weights(INDEX["ip"]["shapes"])
    save_file(tensors, tmp_path / "ip.safetensors")
    adapter = ip_adapter.read(tmp_path / "ip.safetensors", unet)
    vector = jnp.asarray(noise("vector", (2, 1, 12)))[:, 0]
    tokens = adapter.tokens.apply({"params": adapter.projection}, vector)
    params = adapter.apply_to(unet.params)

    @jax.jit
    def run(weight):
        context = jnp.asarray(noise("context", (2, 5, 24)))
        cond = Cond(context=context, picture=tokens, picture_weight=jnp.full(2, weight))
        return UNet(unet.config).apply({"params": params}, picture("x", (2, 4, 8, 8)), T, cond)

    whole = run(0.6)
    with compilations() as again:
        none = run(0.0)
    assert again.count == 0
    close(first(whole), ARRAYS["ip/y"])
    assert np.abs(none - whole).max() > 1e-3
    ip_adapter.write(tmp_path / "again.safetensors", adapter, unet.config)
    same_tensors(load_file(tmp_path / "again.safetensors"), tensors)


@pytest.mark.parametrize("kind", ["plus", "full"])
def test_ip_adapters_of_states_agree(tmp_path, kind):
    unet = component("UNet2DConditionModel", UNETS["sd1"])
    plain = {name: x for name, x in weights(INDEX["ip"]["shapes"]).items() if name.startswith("ip_adapter")}
    tensors = {**plain, **weights(INDEX[kind]["shapes"])}
    save_file(tensors, tmp_path / "ip.safetensors")
    adapter = ip_adapter.read(tmp_path / "ip.safetensors", unet)
    tokens = adapter.tokens.apply({"params": adapter.projection}, jnp.asarray(noise("states", (2, 7, 12))))
    close(tokens, ARRAYS[f"{kind}/tokens"])
    ip_adapter.write(tmp_path / "again.safetensors", adapter, unet.config)
    same_tensors(load_file(tmp_path / "again.safetensors"), tensors)


def zeros(**shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


IP, PLUS, FULL = (INDEX[kind]["shapes"] for kind in ("ip", "plus", "full"))
ATTENTIONS = {name: shape for name, shape in IP.items() if name.startswith("ip_adapter")}
FACE = {"image_proj.proj.0.weight": (4, 512), "image_proj.proj.2.weight": (8, 4), "image_proj.norm.weight": (24,)}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (1,)}, "is not an IP-adapter: it has no image_proj.proj.weight"),
        ({**ATTENTIONS, **FACE}, "for vectors of faces .FaceID., which is not supported"),
        ({**FACE, "image_proj.perceiver_resampler.proj_in.weight": (4, 4)}, "FaceID"),
        ({**IP, "ip_adapter.0.to_q_lora.down.weight": (4, 4)}, "FaceID"),
        ({**IP, "ip_adapter.1.to_k_ip.weight": (32, 2048)}, "is an IP-adapter for SDXL .* this model is a U-Net .* 24"),
        ({**IP, "image_proj.proj.weight": (25, 12)}, "25 numbers are no tokens of 24"),
        ({**IP, "image_proj.proj.weight": (96,)}, r"image_proj.proj.weight is \(96,\), expected 2 dimensions"),
        ({n: s for n, s in IP.items() if n != "image_proj.norm.weight"}, "it has no image_proj.norm.weight"),
        ({n: s for n, s in PLUS.items() if "proj_in.weight" not in n}, "it has no image_proj.proj_in.weight"),
        ({**PLUS, "image_proj.latents": (5, 16)}, r"image_proj.latents is \(5, 16\), expected 3 dimensions"),
        ({**PLUS, "image_proj.latents": (1, 5, 0)}, "image_proj.latents is"),
        ({**PLUS, "image_proj.layers.0.0.to_q.weight": (32, 16)}, "has heads of 64 in 32 numbers"),
        ({n: s for n, s in FULL.items() if "proj.2" not in n}, "it has no image_proj.proj.2.weight"),
    ],
)
def test_what_is_no_ip_adapter(tmp_path, shapes, message):
    save_file(zeros(**shapes), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        ip_adapter.read(tmp_path / "x.safetensors", UNET_CONFIG)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


UNET_CONFIG = Component("UNet2DConditionModel", UNETS["sd1"]["config"], None, {})


@pytest.mark.parametrize("missing", ["ip_adapter.1.to_k_ip.weight", "image_proj.proj.bias"])
def test_an_ip_adapter_that_lacks_a_tensor(tmp_path, missing):
    unet = component("UNet2DConditionModel", UNETS["sd1"])
    tensors = weights(IP)
    del tensors[missing]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(TensorError, match=f"missing: {missing}"):
        ip_adapter.read(tmp_path / "less.safetensors", unet)


def test_an_ip_adapter_for_another_image_encoder(tmp_path):
    encoder = dataclasses.replace(component("CLIPVisionModelWithProjection", INDEX["image"]), params={})
    encoders = [dataclasses.replace(encoder.config, projection=n, width=n) for n in (768, 1280)]
    big, vit_h = (dataclasses.replace(encoder, config=config) for config in encoders)
    save_file(zeros(**IP), tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=r"takes vectors of 12: the image encoder gives 768 \(CLIP ViT-L\)"):
        ip_adapter.read(tmp_path / "plain.safetensors", UNET_CONFIG, image_encoder=big)
    save_file(zeros(**ATTENTIONS, **PLUS), tmp_path / "plus.safetensors")
    with pytest.raises(ValueError, match=r"takes states of 12: the image encoder gives 1280 \(OpenCLIP ViT-H\)"):
        ip_adapter.read(tmp_path / "plus.safetensors", UNET_CONFIG, image_encoder=vit_h)
