"""diffusers' ControlNetModel: names, and config.json; most is the U-Net's."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.controlnet import ControlNet, ControlNetConfig
from jaxdiff.pretrained.rules import Rule, Rules, unet
from jaxdiff.pretrained.rules.fields import settle
from jaxdiff.typing import Params

_DEFAULTS = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "conditioning_channels": 3,
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "controlnet_conditioning_channel_order": "rgb",
    "global_pool_conditions": False,
}
_FIXED = {"controlnet_conditioning_channel_order": ("rgb", "bgr")}


def config(json: Mapping[str, Any]) -> ControlNetConfig:
    """The numbers of a ControlNetModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    own = {field: value for field, value in json.items() if field in _DEFAULTS}
    full = settle("ControlNetModel", own, _DEFAULTS, _FIXED)
    shared = {field: value for field, value in json.items() if field not in _DEFAULTS}
    blocks = {"down_block_types": full["down_block_types"], "up_block_types": unet.mirror(full["down_block_types"])}
    return ControlNetConfig(
        net=unet.condition_config({**shared, **blocks}),
        hint_channels=tuple(full["conditioning_embedding_out_channels"]),
        bgr=full["controlnet_conditioning_channel_order"] == "bgr",
    )


def rules(net: ControlNetConfig, json: Mapping[str, Any]) -> Rules:
    """The table of a ControlNet with this config.json."""
    return (
        *unet.encoder_rules(net.net, json),
        Rule("controlnet_cond_embedding.conv_in", "hint/conv_in", "conv"),
        Rule("controlnet_cond_embedding.blocks.{}", "hint/conv_{}", "conv"),
        Rule("controlnet_cond_embedding.conv_out", "hint/conv_out", "conv"),
        Rule("controlnet_down_blocks.{}", "skip_{}", "conv"),
        Rule("controlnet_mid_block", "skip_mid", "conv"),
    )


def shapes(net: ControlNetConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""

    def init() -> Params:
        x, t, cond = unet.inputs(net.net, json)
        side = x.shape[1] * 2 ** (len(net.hint_channels) - 1)
        hint = jnp.zeros((1, side, side, json.get("conditioning_channels", 3)))
        return ControlNet(net).init(jax.random.key(0), x, t, cond, hint)

    return jax.eval_shape(init)["params"]
