"""diffusers' AutoencoderKL, AutoencoderTiny and VQModel: names, and config.json."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.autoencoder_kl import AutoencoderConfig, AutoencoderKL
from jaxdiff.models.autoencoder_tiny import AutoencoderTiny, TinyConfig
from jaxdiff.models.autoencoder_vq import AutoencoderVQ, VQConfig
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
TINY_RULES: Rules = (
    *(Rule(f"{half}.layers.{{}}", f"{half}/layer_{{}}", "conv") for half in ("encoder", "decoder")),
    *(Rule(f"{half}.layers.{{}}.conv.{{}}", f"{half}/layer_{{}}/conv_{{}}", "conv") for half in ("encoder", "decoder")),
)
VQ_RULES: Rules = (*RULES, Rule("quantize.embedding.weight", "codebook", "same"))
_TINY_DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": (64, 64, 64, 64),
    "decoder_block_out_channels": (64, 64, 64, 64),
    "block_out_channels": None,
    "latent_channels": 4,
    "num_encoder_blocks": (1, 3, 3, 3),
    "num_decoder_blocks": (3, 3, 3, 1),
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "force_upcast": False,
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
}
_TINY_FIXED = {"act_fn": ("relu",), "upsample_fn": ("nearest",), "upsampling_scaling_factor": (2,)}
_VQ_FIXED = {"act_fn": ("silu", "swish"), "norm_type": ("group",), "lookup_from_codebook": (False,)}
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


def tiny_config(json: Mapping[str, Any]) -> TinyConfig:
    """The numbers of an AutoencoderTiny.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle("AutoencoderTiny", json, _TINY_DEFAULTS, _TINY_FIXED)
    return TinyConfig(
        in_channels=full["in_channels"],
        out_channels=full["out_channels"],
        encoder_channels=tuple(full["encoder_block_out_channels"]),
        encoder_blocks=tuple(full["num_encoder_blocks"]),
        decoder_channels=tuple(full["decoder_block_out_channels"]),
        decoder_blocks=tuple(full["num_decoder_blocks"]),
        latent_channels=full["latent_channels"],
        scale=full["scaling_factor"],
        shift=full["shift_factor"] or 0.0,
    )


def tiny_shapes(net: TinyConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    side = 2 ** (len(net.encoder_channels) - 1)
    x = jnp.zeros((1, side, side, net.in_channels))
    return jax.eval_shape(lambda: AutoencoderTiny(net).init(jax.random.key(0), x))["params"]


def vq_config(json: Mapping[str, Any]) -> VQConfig:
    """The numbers of a VQModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    defaults = {
        **_DEFAULTS,
        "latent_channels": 3,
        "num_vq_embeddings": 256,
        "vq_embed_dim": None,
        "force_upcast": False,
    }
    full = settle("VQModel", json, defaults, _VQ_FIXED)
    plain = {field: full[field] for field in _DEFAULTS}
    width = full["vq_embed_dim"] or full["latent_channels"]
    return VQConfig(net=config(plain), codes=full["num_vq_embeddings"], width=width)


def vq_shapes(net: VQConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    side = 2 ** (len(net.net.channels) - 1)
    x = jnp.zeros((1, side, side, net.net.in_channels))
    return jax.eval_shape(lambda: AutoencoderVQ(net).init(jax.random.key(0), x))["params"]
