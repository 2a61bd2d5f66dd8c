"""Autoencoders and CLIP encoders against the reference libraries: outputs, names, config.json."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights
from support import REFERENCE, close, same_tensors, to_device

from jaxdiff.models import autoencoder_kl
from jaxdiff.models.autoencoder_kl import AutoencoderKL
from jaxdiff.models.autoencoder_tiny import AutoencoderTiny
from jaxdiff.models.autoencoder_vq import AutoencoderVQ
from jaxdiff.models.controlnet import ControlNet, controlled
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNet
from jaxdiff.pretrained.rules import autoencoder, clip, controlnet, flatten, from_tensors, to_tensors, unet, unet_config
from jaxdiff.typing import Cond

AUTOENCODERS, PICTURES = load(REFERENCE / "sd_autoencoder.npz")
TEXTS, STATES = load(REFERENCE / "sd_clip.npz")
CONTROLS, CONTROLLED = load(REFERENCE / "sd_controlnet.npz")
TOKENS = jnp.array([[1, 5, 7, 98, 99, 99, 0, 0], [1, 5, 80, 81, 12, 98, 3, 99]])


def read_autoencoder(case):
    entry = AUTOENCODERS[case]
    net = autoencoder.config(entry["config"])
    tensors = weights(entry["shapes"])
    return net, tensors, from_tensors(tensors, autoencoder.shapes(net, entry["config"]), autoencoder.RULES, to_device)


def read_text(case):
    entry = TEXTS[case]
    net = clip.text_config(entry["config"], projection=entry["class"].endswith("Projection"))
    tensors = weights(entry["shapes"])
    return net, tensors, from_tensors(tensors, clip.text_shapes(net, entry["config"]), clip.TEXT_RULES, to_device)


def picture(name, shape):
    return jnp.asarray(noise(name, shape).transpose(0, 2, 3, 1))


def first(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("case", ["sd", "flux"])
def test_autoencoder_agrees(case):
    net, tensors, params = read_autoencoder(case)
    x, z = picture("picture", (2, 3, 16, 24)), picture("z", (2, net.latent_channels, 8, 12))
    run = jax.jit(
        lambda method, *args: AutoencoderKL(net).apply({"params": params}, *args, method=method), static_argnums=0
    )
    mean, log_var = run("encode", x)
    close(first(mean), PICTURES[f"{case}/mean"])
    close(first(log_var), PICTURES[f"{case}/log_var"])
    close(first(run("decode", z)), PICTURES[f"{case}/picture"])
    same_tensors(to_tensors(params, autoencoder.RULES), tensors)


def test_tiny_autoencoder_agrees():
    entry = AUTOENCODERS["tiny"]
    net, tensors = autoencoder.tiny_config(entry["config"]), weights(entry["shapes"])
    params = from_tensors(tensors, autoencoder.tiny_shapes(net, {}), autoencoder.TINY_RULES, to_device)
    run = jax.jit(lambda method, x: AutoencoderTiny(net).apply({"params": params}, x, method=method), static_argnums=0)
    close(first(run("encode", picture("picture", (2, 3, 16, 24)))), PICTURES["tiny/latents"])
    close(first(run("decode", picture("z", (2, 4, 8, 12)))), PICTURES["tiny/picture"])
    same_tensors(to_tensors(params, autoencoder.TINY_RULES), tensors)


def test_vq_autoencoder_agrees():
    entry = AUTOENCODERS["vq"]
    net, tensors = autoencoder.vq_config(entry["config"]), weights(entry["shapes"])
    params = from_tensors(tensors, autoencoder.vq_shapes(net, {}), autoencoder.VQ_RULES, to_device)
    run = jax.jit(lambda method, x: AutoencoderVQ(net).apply({"params": params}, x, method=method), static_argnums=0)
    z = picture("z", (2, 3, 8, 12))
    close(first(run("encode", picture("picture", (2, 3, 16, 24)))), PICTURES["vq/latents"])
    np.testing.assert_array_equal(run("quantize", z)[1], PICTURES["vq/codes"])
    close(first(run("decode", z)), PICTURES["vq/picture"])
    same_tensors(to_tensors(params, autoencoder.VQ_RULES), tensors)


def read_control(case):
    entry = CONTROLS[case]
    net, tensors = controlnet.config(entry["config"]), weights(entry["shapes"])
    rules = controlnet.rules(net, entry["config"])
    params = from_tensors(tensors, controlnet.shapes(net, entry["config"]), rules, to_device)
    same_tensors(to_tensors(params, rules), tensors)
    return net, params


def test_two_controlnets_agree():
    (plain, weights_a), (other, weights_b) = read_control("plain"), read_control("other")
    entry = CONTROLS["unet"]
    net, tensors = unet_config.condition_config(entry["config"]), weights(entry["shapes"])
    params = from_tensors(tensors, unet.shapes(net, entry["config"]), unet.rules(net, entry["config"]), to_device)
    x, t, context = picture("x", (2, 4, 8, 8)), jnp.array([17.0, 801.0]), jnp.asarray(noise("context", (2, 5, 24)))
    hints = tuple(picture(f"hint {name}", (2, 3, 16, 16)) for name in ("plain", "other"))
    residuals = ControlNet(plain).apply({"params": weights_a}, x, t, Cond(context=context), hints[0])
    close(first(0.7 * residuals[0]), CONTROLLED["plain/first"])
    close(first(0.7 * residuals[-1]), CONTROLLED["plain/mid"])
    all_params = {"unet": params, "controls": [weights_a, weights_b], "scales": jnp.array([0.7, 1.3])}
    network = jax.jit(controlled(net, [plain, other]))
    close(first(network(all_params, x, t, Cond(context=context, hints=hints))), CONTROLLED["unet/y"])
    with pytest.raises(ValueError, match="2 ControlNets need as many hints, got 1"):
        network(all_params, x, t, Cond(context=context, hints=hints[:1]))
    with pytest.raises(ValueError, match="the hint is 8x8, expected 16x16"):
        ControlNet(plain).apply({"params": weights_a}, x, t, Cond(context=context), hints[0][:, :8, :8])
    with pytest.raises(ValueError, match=r"call controlnet.controlled"):
        UNet(net).apply({"params": params}, x, t, Cond(context=context, hints=hints))


def test_autoencoder_scales():
    net = autoencoder.config(AUTOENCODERS["flux"]["config"])
    assert (net.scale, net.shift, net.upcast) == (0.3611, 0.1159, False)
    z = jnp.linspace(-3, 3, 5)
    np.testing.assert_allclose(autoencoder_kl.scaled(net, z), (z - 0.1159) * 0.3611, rtol=1e-6)
    np.testing.assert_allclose(autoencoder_kl.unscaled(net, autoencoder_kl.scaled(net, z)), z, rtol=1e-6)


@pytest.mark.parametrize("case", TEXTS)
def test_text_agrees(case):
    net, tensors, params = read_text(case)
    run = jax.jit(lambda skip, norm: ClipText(net).apply({"params": params}, TOKENS, skip, norm), static_argnums=(0, 1))
    states, pooled = run(0, True)
    close(states, STATES[f"{case}/last"])
    close(pooled, STATES[f"{case}/pooled"])
    earlier, pooled = run(1, False)
    close(earlier, STATES[f"{case}/earlier"])
    close(pooled, STATES[f"{case}/pooled"])
    long = {name if name.startswith("text_") else f"text_model.{name}": x for name, x in tensors.items()}
    same_tensors(to_tensors(params, clip.TEXT_RULES), long)
    again = from_tensors(long, clip.text_shapes(net, {}), clip.TEXT_RULES)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_text_end_token():
    assert read_text("large")[0].end is None
    assert read_text("huge")[0].end == 99


@pytest.mark.parametrize(
    ("json", "count"),  # ViT-L/14's text part, and OpenCLIP's bigG, as published
    [
        ({"hidden_size": 768, "intermediate_size": 3072}, 123_060_480),
        (
            {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1280},
            694_659_840,
        ),
    ],
)
def test_published_text_sizes(json, count):
    net = clip.text_config(json, projection="projection_dim" in json)
    net = dataclasses.replace(net, heads=16)
    assert sum(int(np.prod(leaf.shape)) for leaf in flatten(clip.text_shapes(net, json)).values()) == count


def test_published_autoencoder_size():
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    levels = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, **blocks}
    shapes = autoencoder.shapes(autoencoder.config(levels), levels)
    assert sum(int(np.prod(leaf.shape)) for leaf in flatten(shapes).values()) == 83_653_863


@pytest.mark.parametrize(
    ("read", "json", "message"),
    [
        (autoencoder.config, {"latents_mean": [0.1]}, "latents_mean and latents_std have 1 and 0 numbers"),
        (
            autoencoder.config,
            {"down_block_types": ["AttnDownEncoderBlock2D"]},
            "only the mirror of down_block_types, .'AttnUpDecoderBlock2D'",
        ),
        (lambda json: clip.text_config(json, projection=False), {"hidden_act": "relu"}, "'quick_gelu' or 'gelu'"),
    ],
)
def test_what_is_not_supported_is_named(read, json, message):
    with pytest.raises(ValueError, match=message):
        read(json)


def test_clip_skip_is_checked():
    net, _, params = read_text("large")
    with pytest.raises(ValueError, match="skip=3 of 3 layers"):
        ClipText(net).apply({"params": params}, TOKENS, 3)


def test_tiles_fade_into_each_other():
    decode = lambda z: jnp.broadcast_to(z.mean((1, 2), keepdims=True), z.shape)  # each tile is of one colour
    z = jnp.broadcast_to(jnp.arange(14.0)[None, None, :, None], (1, 8, 14, 1))
    row = autoencoder_kl.tiled(decode, z, tile=8, overlap=2, factor=1)[0, 4, :, 0]
    expected = [3.5] * 6 + [5.5, 7.5] + [9.5] * 6  # the means of the first and last 8; a third and two of the way
    np.testing.assert_allclose(row, expected, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (20, 13), (33, 16)])
def test_tiles_of_a_local_decoder_make_the_whole(height, width):
    decode = lambda z: jnp.repeat(jnp.repeat(jnp.sin(z), 2, 1), 2, 2)
    z = picture("tiles", (2, 3, height, width))
    whole = decode(z)
    parts = jax.jit(lambda z: autoencoder_kl.tiled(decode, z, tile=8, overlap=3, factor=2))(z)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(autoencoder_kl.sliced(decode, z), whole, atol=1e-6)
