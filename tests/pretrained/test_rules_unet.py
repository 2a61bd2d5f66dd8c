"""U-Nets of every published shape against the reference library: outputs, names, config.json."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights
from support import REFERENCE, close, same_tensors

from jaxdiff.models.unet import UNet, with_sizes
from jaxdiff.pretrained.rules import flatten, from_tensors, to_tensors, unet_config
from jaxdiff.pretrained.rules import unet as rules
from jaxdiff.typing import Cond

INDEX, ARRAYS = load(REFERENCE / "sd_unet.npz")
T = jnp.array([17.0, 801.0])
CONFIGS = {"UNet2DConditionModel": unet_config.condition_config, "UNet2DModel": unet_config.pixel_config}


def read(case):
    entry = INDEX[case]
    net = CONFIGS[entry["class"]](entry["config"])
    tensors = weights(entry["shapes"])
    return net, tensors, from_tensors(tensors, rules.shapes(net, entry["config"]), rules.rules(net, entry["config"]))


def cond(case, net):
    kinds = {"context": jnp.asarray(noise("context", (2, 5, 24)))} if "cross" in net.attention else {}
    if case == "sdxl":
        sizes = jnp.array([[64.0, 48, 0, 8, 64, 64], [32, 32, 4, 0, 128, 64]])
        kinds["pooled"] = with_sizes(jnp.asarray(noise("pooled", (2, 20))), sizes, 8)
    if case == "unclip":
        kinds["pooled"] = jnp.asarray(noise("pooled", (2, 20)))
    if case == "noise_level":
        kinds["augment"] = jnp.array([20.0, 350.0])
    if net.labels:
        kinds["label"] = jnp.array([3, net.labels])
    return Cond(**kinds)


@pytest.mark.parametrize("case", INDEX)
def test_output_agrees(case):
    net, _, params = read(case)
    channels = INDEX[case]["config"]["in_channels"]
    x = jnp.asarray(noise("x", (2, channels, 8, 8)).transpose(0, 2, 3, 1))
    given = cond(case, net)
    if case == "inpaint":  # the mask and the masked picture come through the condition
        x, given = x[..., :4], Cond(context=given.context, image=x[..., 4:])
    y = jax.jit(UNet(net).apply)({"params": params}, x, T, given)
    close(np.asarray(y).transpose(0, 3, 1, 2), ARRAYS[f"{case}/y"])


@pytest.mark.parametrize("case", INDEX)
def test_names_go_both_ways(case):
    net, tensors, params = read(case)
    back = to_tensors(params, rules.rules(net, INDEX[case]["config"]))
    same_tensors(back, tensors)


def test_names_of_old_checkpoints_are_read():
    entry = INDEX["ldm"]
    net, tensors, params = read("ldm")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(name):
        head, _, leaf = name.rpartition(".")
        last = next((new for new in old if head.endswith("." + new)), None)
        return f"{head.removesuffix(last)}{old[last]}.{leaf}" if last else name

    renamed = {rename(name): x for name, x in tensors.items()}
    assert renamed.keys() != tensors.keys()
    again = from_tensors(renamed, rules.shapes(net, entry["config"]), rules.rules(net, entry["config"]))
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("case", ["ddpm", "ldm", "adm"])
def test_config_goes_both_ways(case):
    net = read(case)[0]
    json = unet_config.pixel_json(net, 3)
    assert unet_config.pixel_config(json) == net
    theirs = INDEX[case]["config"]
    assert {k: v for k, v in json.items() if k in theirs and k not in ("_class_name", "attn_norm_num_groups")} == {
        k: v for k, v in theirs.items() if k in json and k not in ("_class_name", "attn_norm_num_groups")
    }


def test_what_diffusers_cannot_have_is_named():
    net = dataclasses.replace(read("ddpm")[0], patch=2, rescale=1.4)
    with pytest.raises(ValueError, match=r"cannot have patch=2, rescale=1.4"):
        unet_config.pixel_json(net, 3)


SD15 = {
    "_class_name": "UNet2DConditionModel",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "mid_block_scale_factor": 1,
    "sample_size": 64,
}
SDXL = {
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
CIFAR = {
    "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": None,
    "downsample_padding": 0,
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "norm_eps": 1e-6,
}


@pytest.mark.parametrize(
    ("json", "config", "count"),  # parameters as published
    [
        (SD15, unet_config.condition_config, 859_520_964),
        (SDXL, unet_config.condition_config, 2_567_463_684),
        (CIFAR, unet_config.pixel_config, 35_746_307),
    ],
)
def test_published_sizes(json, config, count):
    leaves = flatten(rules.shapes(config(json), json)).values()
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dual_cross_attention": True}, "dual_cross_attention=True is not supported, only False"),
        ({"resnet_time_scale_shift": "spatial"}, "only 'default'"),
        ({"some_new_thing": 3}, "some_new_thing=3 is a field unknown here"),
        ({"up_block_types": ["UpBlock2D"] * 4}, "only the mirror of down_block_types"),
        ({"down_block_types": ["KDownBlock2D"] * 4}, "supported are CrossAttnDownBlock2D, DownBlock2D"),
        ({"cross_attention_dim": [1, 2, 3, 4]}, "only a whole number from 1 to 1000000"),
    ],
)
def test_what_is_not_supported_is_named(change, message):
    with pytest.raises(ValueError, match="UNet2DConditionModel") as error:
        unet_config.condition_config({**SD15, **change})
    assert message in str(error.value)
