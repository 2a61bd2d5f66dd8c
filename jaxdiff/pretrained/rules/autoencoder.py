"""diffusers' AutoencoderKL: names, and config.json."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.autoencoder_kl import AutoencoderConfig, AutoencoderKL
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.fields import settle
from jaxdiff.pretrained.rules.unet import ATTENTION, RESNET
from jaxdiff.typing import Params

_HALF = (
    Rule("conv_in", "conv_in", "conv"),
    *under("mid_block.resnets.{}", "mid/resnet_{}", RESNET),
    *under("mid_block.attentions.{}", "mid/attn_{}", ATTENTION),
    Rule("conv_norm_out", "norm_out", "norm"),
    Rule("conv_out", "conv_out", "conv"),
)
RULES: Rules = (
    *under("encoder", "encoder", _HALF),
    *under("encoder.down_blocks.{}.resnets.{}", "encoder/down_{}/resnet_{}", RESNET),
    Rule("encoder.down_blocks.{}.downsamplers.0.conv", "encoder/down_{}/downsample/conv", "conv"),
    *under("decoder", "decoder", _HALF),
    *under("decoder.up_blocks.{}.resnets.{}", "decoder/up_{}/resnet_{}", RESNET),
    Rule("decoder.up_blocks.{}.upsamplers.0.conv", "decoder/up_{}/upsample", "conv"),
    Rule("quant_conv", "quant_conv", "conv"),
    Rule("post_quant_conv", "post_quant_conv", "conv"),
)
_DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "force_upcast": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
_FIXED = {"act_fn": ("silu", "swish"), "latents_mean": (None,), "latents_std": (None,)}


def config(json: Mapping[str, Any]) -> AutoencoderConfig:
    """The numbers of an AutoencoderKL.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle("AutoencoderKL", json, _DEFAULTS, _FIXED)
    check_blocks("AutoencoderKL", full)
    return AutoencoderConfig(
        in_channels=full["in_channels"],
        out_channels=full["out_channels"],
        channels=tuple(full["block_out_channels"]),
        layers=full["layers_per_block"],
        latent_channels=full["latent_channels"],
        groups=full["norm_num_groups"],
        mid_attention=full["mid_block_add_attention"],
        quant_conv=full["use_quant_conv"],
        post_quant_conv=full["use_post_quant_conv"],
        scale=full["scaling_factor"],
        shift=full["shift_factor"] or 0.0,
        upcast=full["force_upcast"],
    )


def check_blocks(name: str, full: Mapping[str, Any]) -> None:
    """Refuses levels of another kind than the plain ones."""
    for field, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if other := {*full[field]} - {kind}:
            raise ValueError(f"{name}: {field} has {', '.join(sorted(other))}, supported is {kind}")


def shapes(net: AutoencoderConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    side = 2 ** (len(net.channels) - 1)
    x = jnp.zeros((1, side, side, net.in_channels))
    return jax.eval_shape(lambda: AutoencoderKL(net).init(jax.random.key(0), x))["params"]
