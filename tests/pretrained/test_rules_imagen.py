"""U-Nets of IF, unCLIP and Kandinsky against the reference library: outputs, names, config.json."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights
from support import REFERENCE, close, same_tensors

from jaxdiff.models.unet import UNet
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.rules import flatten, from_tensors, to_tensors, unet_config
from jaxdiff.typing import Cond

INDEX, ARRAYS = load(REFERENCE / "imagen_unet.npz")
T = jnp.array([17.0, 801.0])


@functools.cache
def read(case):
    entry = INDEX[case]
    one, json = family(entry["class"]), entry["config"]
    net, tensors = one.config(json), weights(entry["shapes"])
    return net, tensors, from_tensors(tensors, one.shapes(net, json), one.rules(net, json)), one.rules(net, json)


# each compiles for some seconds; the others are left for the long run
OFTEN = ("if two", "kandinsky")


@pytest.mark.parametrize("case", [pytest.param(n, marks=[] if n in OFTEN else [pytest.mark.heavy]) for n in INDEX])
def test_output_agrees(case):
    net, _, params, _ = read(case)
    channels = INDEX[case]["config"]["in_channels"] - 4 * net.hint
    x = jnp.asarray(noise("x", (2, channels, 8, 8)).transpose(0, 2, 3, 1))
    given = {f.name: f"{case}/given {f.name}" for f in dataclasses.fields(Cond)}
    cond = Cond(**{name: jnp.asarray(ARRAYS[key]) for name, key in given.items() if key in ARRAYS.files})
    if net.hint:
        cond = dataclasses.replace(cond, image=jnp.asarray(noise("image", (2, 64, 64, 3))))
    y = jax.jit(UNet(net).apply)({"params": params}, x, T, cond)
    close(np.asarray(y).transpose(0, 3, 1, 2), ARRAYS[f"{case}/y"])


@pytest.mark.parametrize("case", INDEX)
def test_names_go_both_ways(case):
    _, tensors, params, rules = read(case)
    same_tensors(to_tensors(params, rules), tensors)


IF_ONE = {
    "act_fn": "gelu",
    "addition_embed_type": "text",
    "attention_head_dim": 64,
    "block_out_channels": [704, 1408, 2112, 2816],
    "cross_attention_dim": 2816,
    "cross_attention_norm": "group_norm",
    "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "encoder_hid_dim": 4096,
    "in_channels": 3,
    "out_channels": 6,
    "layers_per_block": 3,
    "resnet_time_scale_shift": "scale_shift",
}


@pytest.mark.heavy  # shapes of 4.3 billion numbers take seconds to trace
def test_published_size():
    net, one = unet_config.condition_config(IF_ONE), family("UNet2DConditionModel")
    leaves = flatten(one.shapes(net, IF_ONE)).values()
    count = sum(int(np.prod(leaf.shape)) for leaf in leaves)
    assert round(count / 1e9, 1) == 4.3  # IF-I-XL, as its card says


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_head_dim": [64, 64, 64, 32]}, "only one width for all levels"),
        ({"attention_head_dim": 60}, "which do not divide block_out_channels=1408"),
        (
            {"down_block_types": ["DownBlock2D"] * 4},
            "supported are ResnetDownsampleBlock2D, SimpleCrossAttnDownBlock2D",
        ),
        ({"cross_attention_norm": "layer_norm"}, "cross_attention_norm='layer_norm' is not supported"),
        ({"addition_embed_type": "image_hint"}, "with addition_embed_type='image_hint': supported are image_proj"),
        ({"addition_embed_type": "image"}, "supported are image_proj with image"),
        ({"class_embed_type": "identity"}, "do not go together here"),
        ({"encoder_hid_dim": None, "encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim is missing"),
        ({"layers_per_block": [3, 3]}, "layers_per_block has 2 members and block_out_channels 4"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "supported are CrossAttnDownBlock2D, DownBlock2D"),
        ({"act_fn": "mish"}, "only 'silu' or 'swish' or 'gelu'"),
    ],
)
def test_what_is_not_supported_is_named(change, words):
    with pytest.raises(ValueError, match="UNet2DConditionModel") as error:
        unet_config.condition_config({**IF_ONE, **change})
    assert words in str(error.value)
