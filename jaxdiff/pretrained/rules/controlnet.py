"""diffusers' ControlNetModel: names, and config.json; most is the U-Net's."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.controlnet import ControlNet, ControlNetConfig
from jaxdiff.pretrained.rules import Rule, Rules, unet, unet_config
from jaxdiff.pretrained.rules.fields import brief, each, one_of, settle, text, whole
from jaxdiff.typing import Key, Params

_FIELDS = {
    "down_block_types": each(text(""), ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)),
    "conditioning_channels": whole(3),
    "conditioning_embedding_out_channels": each(whole(1), (16, 32, 96, 256)),
    "controlnet_conditioning_channel_order": one_of("rgb", "bgr"),
    "global_pool_conditions": one_of(False),
}
HARMLESS = unet_config.HARMLESS


def config(json: Mapping[str, Any]) -> ControlNetConfig:
    """Returns the numbers of a ControlNetModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    name = "ControlNetModel"
    own = {field: value for field, value in json.items() if field in _FIELDS}
    full = settle(name, own, _FIELDS, HARMLESS)
    shared = {field: value for field, value in json.items() if field not in _FIELDS}
    blocks = {
        "down_block_types": full["down_block_types"],
        "up_block_types": unet_config.mirror(full["down_block_types"]),
    }
    net = unet_config.condition_config({**shared, **blocks}, name)
    unserved = {
        "encoder_hid_dim": net.tokens,
        "addition_embed_type": net.addition not in ("", "plain"),
        "class_embed_type": net.addition == "plain",
        "mid_block_type": net.mid_attention != "cross",
    }
    for field, actual in unserved.items():
        if actual:
            raise ValueError(f"{name}: {field}={brief(json.get(field))} is not supported")
    return ControlNetConfig(
        net=net,
        hint_channels=tuple(full["conditioning_embedding_out_channels"]),
        bgr=full["controlnet_conditioning_channel_order"] == "bgr",
    )


def rules(net: ControlNetConfig, json: Mapping[str, Any]) -> Rules:
    """Returns the table of a ControlNet with this config.json."""
    return (
        *unet.encoder_rules(net.net, json),
        Rule("controlnet_cond_embedding.conv_in", "hint/conv_in", "conv"),
        Rule("controlnet_cond_embedding.blocks.{}", "hint/conv_{}", "conv"),
        Rule("controlnet_cond_embedding.conv_out", "hint/conv_out", "conv"),
        Rule("controlnet_down_blocks.{}", "skip_{}", "conv"),
        Rule("controlnet_mid_block", "skip_mid", "conv"),
    )


def shapes(net: ControlNetConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    return jax.eval_shape(lambda: init(net, json, jax.random.key(0)))


def init(net: ControlNetConfig, json: Mapping[str, Any], key: Key) -> Params:
    """Returns the first parameters, all by chance but the layers that start at zero."""
    x, t, cond = unet.inputs(net.net, json)
    side = x.shape[1] * 2 ** (len(net.hint_channels) - 1)
    hint = jnp.zeros((1, side, side, json.get("conditioning_channels", 3)))
    return ControlNet(net).init(key, x, t, cond, hint)["params"]
