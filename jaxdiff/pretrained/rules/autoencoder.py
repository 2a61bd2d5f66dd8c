"""diffusers' AutoencoderKL, AutoencoderTiny and VQModel: names, and config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.autoencoder_kl import AutoencoderConfig, AutoencoderKL
from jaxdiff.models.autoencoder_tiny import AutoencoderTiny, TinyConfig
from jaxdiff.models.autoencoder_vq import AutoencoderVQ, VQConfig
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.fields import (
    Field,
    brief,
    divides,
    each,
    flag,
    number,
    one_of,
    optional,
    same_length,
    settle,
    whole,
)
from jaxdiff.pretrained.rules.unet import ATTENTION, RESNET
from jaxdiff.typing import Params

_ATTENTIONS = under("attentions.{}", "attn_{}", ATTENTION)
_HALF = (
    Rule("conv_in", "conv_in", "conv"),
    *under("mid_block.resnets.{}", "mid/resnet_{}", RESNET),
    *under("mid_block", "mid", _ATTENTIONS),
    Rule("conv_norm_out", "norm_out", "norm"),
    Rule("conv_out", "conv_out", "conv"),
)
RULES: Rules = (
    *under("encoder", "encoder", _HALF),
    *under("encoder.down_blocks.{}.resnets.{}", "encoder/down_{}/resnet_{}", RESNET),
    *under("encoder.down_blocks.{}", "encoder/down_{}", _ATTENTIONS),
    Rule("encoder.down_blocks.{}.downsamplers.0.conv", "encoder/down_{}/downsample/conv", "conv"),
    *under("decoder", "decoder", _HALF),
    *under("decoder.up_blocks.{}.resnets.{}", "decoder/up_{}/resnet_{}", RESNET),
    *under("decoder.up_blocks.{}", "decoder/up_{}", _ATTENTIONS),
    Rule("decoder.up_blocks.{}.upsamplers.0.conv", "decoder/up_{}/upsample", "conv"),
    Rule("quant_conv", "quant_conv", "conv"),
    Rule("post_quant_conv", "post_quant_conv", "conv"),
)
TINY_RULES: Rules = (
    *(Rule(f"{half}.layers.{{}}", f"{half}/layer_{{}}", "conv") for half in ("encoder", "decoder")),
    *(Rule(f"{half}.layers.{{}}.conv.{{}}", f"{half}/layer_{{}}/conv_{{}}", "conv") for half in ("encoder", "decoder")),
)
_SPATIAL = (
    Rule("norm_layer", "norm", "norm"),
    Rule("conv_y", "scale", "conv"),
    Rule("conv_b", "shift", "conv"),
)
_SPATIAL_LEVEL = (
    *(rule for n in ("norm1", "norm2") for rule in under(f"resnets.{{}}.{n}", f"resnet_{{}}/{n}", _SPATIAL)),
    *under("attentions.{}.spatial_norm", "attn_{}/norm", _SPATIAL),
)
VQ_RULES: Rules = (
    *RULES,
    *under("decoder.mid_block", "decoder/mid", _SPATIAL_LEVEL),
    *under("decoder.up_blocks.{}", "decoder/up_{}", _SPATIAL_LEVEL),
    *under("decoder.conv_norm_out", "decoder/norm_out", _SPATIAL),
    Rule("quantize.embedding.weight", "codebook", "same"),
)
_WIDTHS = each(whole(1), (64, 64, 64, 64))
_BLOCKS = whole(1, most=100)
_TINY_FIELDS = {
    "in_channels": whole(3),
    "out_channels": whole(3),
    "encoder_block_out_channels": _WIDTHS,
    "decoder_block_out_channels": _WIDTHS,
    "latent_channels": whole(4),
    "num_encoder_blocks": each(_BLOCKS, (1, 3, 3, 3)),
    "num_decoder_blocks": each(_BLOCKS, (3, 3, 3, 1)),
    "scaling_factor": number(1.0),
    "shift_factor": optional(number(0.0)),
    "act_fn": one_of("relu"),
    "upsample_fn": one_of("nearest"),
    "upsampling_scaling_factor": one_of(2),
    "force_upcast": one_of(False),
}
TINY_HARMLESS = {
    "latent_magnitude": "for latents that are saved as pictures",
    "latent_shift": "for latents that are saved as pictures",
    "block_out_channels": "the reference repeats the decoder's widths there",
}
_DOWN, _UP = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")
_SHARED = {
    "in_channels": whole(3),
    "out_channels": whole(3),
    "down_block_types": each(one_of(*_DOWN), _DOWN[:1]),
    "up_block_types": each(one_of(*_UP), _UP[:1]),
    "block_out_channels": each(whole(1), (64,)),
    "layers_per_block": _BLOCKS,
    "latent_channels": whole(4),
    "norm_num_groups": whole(32),
    "scaling_factor": number(0.18215),
    "mid_block_add_attention": flag(True),
    "act_fn": one_of("silu", "swish"),
}
_FIELDS = {
    **_SHARED,
    "shift_factor": optional(number(0.0)),
    "force_upcast": flag(True),
    "use_quant_conv": flag(True),
    "use_post_quant_conv": flag(True),
    "latents_mean": Field(None, "finite numbers, one for each channel, or null", lambda x: _numbers(x) is not None),
    "latents_std": Field(None, "finite numbers, one for each channel, or null", lambda x: _numbers(x) is not None),
}
_VQ_FIELDS = {
    **_SHARED,
    "latent_channels": whole(3),
    "num_vq_embeddings": whole(256),
    "vq_embed_dim": optional(whole(1)),
    "force_upcast": flag(False),
    "norm_type": one_of("group", "spatial"),
    "lookup_from_codebook": one_of(False),
}
HARMLESS = {"sample_size": "the side of the reference's tiles"}
"""Fields that change nothing of what is served, and why."""


def _numbers(x: Any) -> tuple[float, ...] | None:
    """Returns the numbers of a list, which may be nested, or of null; None: it holds something else."""
    if isinstance(x, list | tuple):
        parts = [_numbers(one) for one in x]
        return None if None in parts else tuple(value for part in parts for value in part or ())
    if x is None:
        return ()
    return (float(x),) if number(None).fits(x) else None


def config(json: Mapping[str, Any]) -> AutoencoderConfig:
    """Returns the numbers of an AutoencoderKL.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle("AutoencoderKL", json, _FIELDS, HARMLESS)
    scale, shift = _scaling(full)
    return _config("AutoencoderKL", full, scale, shift)


def _scaling(full: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns what latents are multiplied by after something was subtracted: numbers, or one for each channel."""
    scale, shift = float(full["scaling_factor"]), float(full["shift_factor"] or 0)
    mean, std = (_numbers(full[field]) or () for field in ("latents_mean", "latents_std"))
    if not mean and not std:
        return scale, shift
    channels = full["latent_channels"]
    if len(mean) != channels or len(std) != channels or min(std) <= 0 or shift:
        raise ValueError(
            f"AutoencoderKL: latents_mean and latents_std have {len(mean)} and {len(std)} numbers: expected {channels} "
            "of each, the latter above 0, and no shift_factor beside them"
        )
    return tuple(scale / one for one in std), mean


def _config(name: str, full: Mapping[str, Any], scale: Any, shift: Any) -> AutoencoderConfig:
    same_length(name, full, "block_out_channels", "down_block_types", "up_block_types")
    down, up = full["down_block_types"], full["up_block_types"]
    mirror = [_UP[_DOWN.index(block)] for block in reversed(down)]
    if list(up) != mirror:
        raise ValueError(f"{name}: up_block_types={brief(list(up))}: only the mirror of down_block_types, {mirror}")
    divides(name, "norm_num_groups", full["norm_num_groups"], "block_out_channels", full["block_out_channels"])
    return AutoencoderConfig(
        in_channels=full["in_channels"],
        out_channels=full["out_channels"],
        channels=tuple(full["block_out_channels"]),
        layers=full["layers_per_block"],
        latent_channels=full["latent_channels"],
        groups=full["norm_num_groups"],
        mid_attention=full["mid_block_add_attention"],
        attention=tuple(i for i, block in enumerate(down) if block == _DOWN[1]),
        quant_conv=full.get("use_quant_conv", True),
        post_quant_conv=full.get("use_post_quant_conv", True),
        scale=scale,
        shift=shift,
        upcast=full["force_upcast"],
    )


def shapes(net: AutoencoderConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    side = 2 ** (len(net.channels) - 1)
    x = jnp.zeros((1, side, side, net.in_channels))
    return jax.eval_shape(lambda: AutoencoderKL(net).init(jax.random.key(0), x))["params"]


def tiny_config(json: Mapping[str, Any]) -> TinyConfig:
    """Returns the numbers of an AutoencoderTiny.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle("AutoencoderTiny", json, _TINY_FIELDS, TINY_HARMLESS)
    for half in ("encoder", "decoder"):
        same_length("AutoencoderTiny", full, f"{half}_block_out_channels", f"num_{half}_blocks")
    same_length("AutoencoderTiny", full, "encoder_block_out_channels", "decoder_block_out_channels")
    return TinyConfig(
        in_channels=full["in_channels"],
        out_channels=full["out_channels"],
        encoder_channels=tuple(full["encoder_block_out_channels"]),
        encoder_blocks=tuple(full["num_encoder_blocks"]),
        decoder_channels=tuple(full["decoder_block_out_channels"]),
        decoder_blocks=tuple(full["num_decoder_blocks"]),
        latent_channels=full["latent_channels"],
        scale=float(full["scaling_factor"]),
        shift=float(full["shift_factor"] or 0),
    )


def tiny_shapes(net: TinyConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    side = 2 ** (len(net.encoder_channels) - 1)
    x = jnp.zeros((1, side, side, net.in_channels))
    return jax.eval_shape(lambda: AutoencoderTiny(net).init(jax.random.key(0), x))["params"]


def vq_config(json: Mapping[str, Any]) -> VQConfig:
    """Returns the numbers of a VQModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle("VQModel", json, _VQ_FIELDS, HARMLESS)
    width, spatial = full["vq_embed_dim"] or full["latent_channels"], full["norm_type"] == "spatial"
    if spatial and width != full["latent_channels"]:
        raise ValueError(
            f"VQModel: vq_embed_dim={width} is not supported with norm_type='spatial', only latent_channels"
        )
    # Kandinsky, which has them, does not scale the latents of its MoVQ
    net = _config("VQModel", full, 1.0 if spatial else float(full["scaling_factor"]), 0.0)
    config = VQConfig(**dataclasses.asdict(net), codes=full["num_vq_embeddings"], width=width, spatial=spatial)
    if spatial:
        config.check()
    return config


def vq_shapes(net: VQConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    side = net.unit
    x = jnp.zeros((1, side, side, net.in_channels))
    return jax.eval_shape(lambda: AutoencoderVQ(net).init(jax.random.key(0), x))["params"]


def published(net: AutoencoderConfig) -> dict[str, Any]:
    """Returns the config.json of an AutoencoderKL or a VQModel, which `config` or `vq_config` reads back.

    Raises:
      ValueError: for what the class has no field for; names it.
    """
    vq = isinstance(net, VQConfig)
    fields = _VQ_FIELDS if vq else _FIELDS
    if isinstance(net.scale, tuple) or isinstance(net.shift, tuple) or (vq and net.shift):
        raise ValueError(f"scale is {net.scale} and shift {net.shift}: expected one scale, and of a VQModel no shift")
    levels = len(net.channels)
    json = {
        "in_channels": net.in_channels,
        "out_channels": net.out_channels,
        "down_block_types": [_DOWN[i in net.attention] for i in range(levels)],
        "up_block_types": [_UP[i in net.attention] for i in reversed(range(levels))],
        "block_out_channels": list(net.channels),
        "layers_per_block": net.layers,
        "latent_channels": net.latent_channels,
        "norm_num_groups": net.groups,
        "mid_block_add_attention": net.mid_attention,
        "act_fn": "silu",
        "scaling_factor": float(net.scale),
        "shift_factor": float(net.shift),
        "force_upcast": net.upcast,
        "use_quant_conv": net.quant_conv,
        "use_post_quant_conv": net.post_quant_conv,
    }
    if isinstance(net, VQConfig):
        if not (net.quant_conv and net.post_quant_conv):
            raise ValueError("quant_conv or post_quant_conv is False: a VQModel always has both")
        json |= {"num_vq_embeddings": net.codes, "vq_embed_dim": net.width}
        json |= {"norm_type": "spatial"} if net.spatial else {}
    return {name: value for name, value in json.items() if name in fields}
