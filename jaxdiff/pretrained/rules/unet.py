"""diffusers' UNet2DConditionModel (Stable Diffusion) and UNet2DModel (DDPM, LDM): names, and config.json.

What their config calls `attention_head_dim` is the number of heads in the first and the width of a head in the second.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.fields import per_level, settle
from jaxdiff.typing import Cond, Params

RESNET = (
    Rule("norm1", "norm1", "norm"),
    Rule("conv1", "conv1", "conv"),
    Rule("time_emb_proj", "time", "dense"),
    Rule("norm2", "norm2", "norm"),
    Rule("conv2", "conv2", "conv"),
    Rule("conv_shortcut", "shortcut", "conv"),
)
QKV = (
    Rule("to_q", "q", "dense"),
    Rule("to_k", "k", "dense"),
    Rule("to_v", "v", "dense"),
    Rule("to_out.0", "out", "dense"),
)
OLD_QKV = (
    Rule("query", "q", "dense"),
    Rule("key", "k", "dense"),
    Rule("value", "v", "dense"),
    Rule("proj_attn", "out", "dense"),
)
ATTENTION = (Rule("group_norm", "norm", "norm"), *under("", "attn", QKV), *under("", "attn", OLD_QKV))
BLOCK = (
    Rule("norm1", "norm1", "norm"),
    *under("attn1", "attn1", QKV),
    Rule("norm2", "norm2", "norm"),
    *under("attn2", "attn2", QKV),
    Rule("norm3", "norm3", "norm"),
    Rule("ff.net.0.proj", "ff/fc1", "dense"),
    Rule("ff.net.2", "ff/fc2", "dense"),
)
EMBEDDING = (Rule("linear_1", "fc1", "dense"), Rule("linear_2", "fc2", "dense"))


def transformer(projection: str) -> Rules:
    """A spatial transformer whose projections are of kind `conv` or `dense`."""
    return (
        Rule("norm", "norm", "norm"),
        Rule("proj_in", "proj_in", projection),
        *under("transformer_blocks.{}", "block_{}", BLOCK),
        Rule("proj_out", "proj_out", projection),
    )


def encoder_rules(net: UNetConfig, json: Mapping[str, Any]) -> Rules:
    """Embeddings, way down and middle: what a ControlNet shares with a U-Net."""
    attention = _attention(net, json)
    return (
        Rule("conv_in", "conv_in", "conv"),
        *under("time_embedding", "time_mlp", EMBEDDING),
        *under("add_embedding" if json.get("addition_embed_type") else "class_embedding", "pooled_mlp", EMBEDDING),
        *under("class_embedding", "augment_mlp", EMBEDDING),
        Rule("class_embedding", "label_embed", "embed"),
        *under("down_blocks.{}.resnets.{}", "down_{}/resnet_{}", RESNET),
        *under("down_blocks.{}.attentions.{}", "down_{}/attn_{}", attention),
        Rule("down_blocks.{}.downsamplers.0.conv", "down_{}/downsample/conv", "conv"),
        *under("down_blocks.{}.downsamplers.0", "down_{}/downsample", RESNET),
        *under("mid_block.resnets.{}", "mid/resnet_{}", RESNET),
        *under("mid_block.attentions.{}", "mid/attn_{}", attention),
    )


def rules(net: UNetConfig, json: Mapping[str, Any]) -> Rules:
    """The table of a U-Net with this config.json."""
    return (
        *encoder_rules(net, json),
        *under("up_blocks.{}.resnets.{}", "up_{}/resnet_{}", RESNET),
        *under("up_blocks.{}.attentions.{}", "up_{}/attn_{}", _attention(net, json)),
        Rule("up_blocks.{}.upsamplers.0.conv", "up_{}/upsample", "conv"),
        *under("up_blocks.{}.upsamplers.0", "up_{}/upsample", RESNET),
        Rule("conv_norm_out", "norm_out", "norm"),
        Rule("conv_out", "conv_out", "conv"),
    )


def _attention(net: UNetConfig, json: Mapping[str, Any]) -> Rules:
    if "cross" in (*net.attention, net.mid_attention):
        return transformer("dense" if json.get("use_linear_projection") else "conv")
    return ATTENTION


_SHARED: dict[str, Any] = {
    "sample_size": None,
    "num_train_timesteps": None,
    "dropout": 0.0,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "layers_per_block": 2,
    "downsample_padding": 1,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "num_class_embeds": None,
    "class_embed_type": None,
    "attention_head_dim": 8,
}
_CONDITION = {
    **_SHARED,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "only_cross_attention": False,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "addition_embed_type_num_heads": 64,
    "projection_class_embeddings_input_dim": None,
    "upcast_attention": False,  # the softmax is float32 here in any case
}
_PIXELS = {
    **_SHARED,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (224, 448, 672, 896),
    "down_block_types": ("DownBlock2D",) + ("AttnDownBlock2D",) * 3,
    "up_block_types": ("AttnUpBlock2D",) * 3 + ("UpBlock2D",),
    "downsample_type": "conv",
    "upsample_type": "conv",
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "attn_norm_num_groups": None,
}
_FIXED_SHARED = {
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "mid_block_scale_factor": (1,),
    "time_embedding_type": ("positional",),
}
_FIXED_CONDITION = {
    **_FIXED_SHARED,
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "resnet_time_scale_shift": ("default",),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "dual_cross_attention": (False,),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None, "timestep", "projection"),
}
_FIXED_PIXELS = {
    **_FIXED_SHARED,
    "mid_block_type": ("UNetMidBlock2D",),
    "class_embed_type": (None, "timestep"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
}
_ATTENTION = {
    "DownBlock2D": "none",
    "CrossAttnDownBlock2D": "cross",
    "AttnDownBlock2D": "self",
    "ResnetDownsampleBlock2D": "none",
}


def condition_config(json: Mapping[str, Any]) -> UNetConfig:
    """The numbers of a UNet2DConditionModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    name = "UNet2DConditionModel"
    full = settle(name, json, _CONDITION, _FIXED_CONDITION)
    levels = len(full["block_out_channels"])
    only = full["only_cross_attention"]
    if full["addition_embed_type"] and full["class_embed_type"] == "projection":
        raise ValueError(f"{name}: addition_embed_type and class_embed_type='projection' do not go together here")
    return UNetConfig(
        **_common(name, full, {"DownBlock2D", "CrossAttnDownBlock2D"}),
        mid_attention="cross",
        heads=per_level(full["attention_head_dim"], levels),
        depth=per_level(full["transformer_layers_per_block"], levels),
        pooled=full["addition_embed_type"] == "text_time" or full["class_embed_type"] == "projection",
        self_attends_context=tuple(i for i, wanted in enumerate(per_level(only, levels)) if wanted),
    )


def pixel_config(json: Mapping[str, Any]) -> UNetConfig:
    """The numbers of a UNet2DModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    name = "UNet2DModel"
    full = settle(name, {"flip_sin_to_cos": True, **json}, _PIXELS, _FIXED_PIXELS)
    width, channels = full["attention_head_dim"], full["block_out_channels"]
    kinds = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D")
    resample = {full["downsample_type"], full["upsample_type"]}
    if resample not in ({"conv"}, {"resnet"}):
        raise ValueError(f"{name}: downsample_type and upsample_type must be both 'conv' or both 'resnet'")
    scale_shift = full["resnet_time_scale_shift"] == "scale_shift"
    groups = full["attn_norm_num_groups"] or (None if scale_shift else full["norm_num_groups"])
    if full["add_attention"] and groups != full["norm_num_groups"]:
        raise ValueError(
            f"{name}: attn_norm_num_groups={groups}: supported is norm_num_groups={full['norm_num_groups']}"
        )
    wrong = {"conv": "ResnetDownsampleBlock2D", "resnet": "DownBlock2D"}[full["downsample_type"]]
    return UNetConfig(
        **_common(name, full, set(kinds) - {wrong}),
        mid_attention="self" if full["add_attention"] else "none",
        heads=tuple(1 if width is None else c // width for c in channels),
        depth=(1,) * len(channels),
        scale_shift=scale_shift,
        adm_resample=full["downsample_type"] == "resnet",
    )


def mirror(down: Sequence[str]) -> list[str]:
    """The up blocks that go with down blocks."""
    return [block.replace("Down", "Up") for block in reversed(down)]


def pixel_json(net: UNetConfig, in_channels: int) -> dict[str, Any]:
    """config.json of the UNet2DModel that a U-Net of ours is: what `pixel_config` reads back as `net`.

    Raises:
      ValueError: if that class cannot express it; names the fields.
    """
    kinds = ["ResnetDownsampleBlock2D" if net.adm_resample else "DownBlock2D", "AttnDownBlock2D"]
    down = [kinds[kind == "self"] for kind in net.attention]
    widths = {c // h for c, h in zip(net.channels, net.heads, strict=True)}
    alone = all(h == 1 for h in net.heads)
    json: dict[str, Any] = {
        "_class_name": "UNet2DModel",
        "in_channels": in_channels,
        "out_channels": net.out_channels,
        "block_out_channels": list(net.channels),
        "layers_per_block": net.layers,
        "down_block_types": down,
        "up_block_types": mirror(down),
        "add_attention": net.mid_attention != "none",
        "attention_head_dim": None if alone else min(widths),
        "norm_num_groups": net.groups,
        "attn_norm_num_groups": net.groups,
        "norm_eps": net.eps,
        "dropout": net.dropout,
        "freq_shift": int(net.time_shift),
        "flip_sin_to_cos": not net.sin_first,
        "downsample_padding": 0 if net.pad_after else 1,
        "downsample_type": "resnet" if net.adm_resample else "conv",
        "upsample_type": "resnet" if net.adm_resample else "conv",
        "resnet_time_scale_shift": "scale_shift" if net.scale_shift else "default",
        "class_embed_type": "timestep" if net.augment else None,
        "num_class_embeds": net.labels + 1 if net.labels else None,
    }
    back = dataclasses.replace(pixel_config(json), remat=net.remat, dtype=net.dtype)
    lost = [field.name for field in dataclasses.fields(net) if getattr(net, field.name) != getattr(back, field.name)]
    if lost:
        given = ", ".join(f"{name}={getattr(net, name)}" for name in lost)
        raise ValueError(
            f"a UNet2DModel of diffusers cannot have {given}: such a network stays in jaxdiff's own format"
        )
    return json


def _common(name: str, full: Mapping[str, Any], kinds: set[str]) -> dict[str, Any]:
    down, up, channels = full["down_block_types"], full["up_block_types"], tuple(full["block_out_channels"])
    for block in down:
        if block not in kinds:
            raise ValueError(f"{name}: down_block_types has {block}, supported are {', '.join(sorted(kinds))}")
    if list(up) != mirror(down):
        raise ValueError(f"{name}: up_block_types={list(up)}: only the mirror of down_block_types, {mirror(down)}")
    if isinstance(full["layers_per_block"], list | tuple):
        raise ValueError(f"{name}: layers_per_block={full['layers_per_block']}: only one number for all levels")
    if full.get("time_embedding_dim") not in (None, 4 * channels[0]):
        raise ValueError(f"{name}: time_embedding_dim={full['time_embedding_dim']}, supported is {4 * channels[0]}")
    if isinstance(full.get("cross_attention_dim"), list | tuple):
        raise ValueError(f"{name}: cross_attention_dim={full['cross_attention_dim']}: only one number for all levels")
    padding = full["downsample_padding"]
    if padding not in (0, 1):
        raise ValueError(f"{name}: downsample_padding={padding}, supported are 0 and 1")
    by_label = full["class_embed_type"] is None and full["num_class_embeds"]
    return {
        "out_channels": full["out_channels"],
        "channels": channels,
        "layers": full["layers_per_block"],
        "attention": tuple(_ATTENTION[block] for block in down),
        "labels": full["num_class_embeds"] - 1 if by_label else 0,
        "augment": full["class_embed_type"] == "timestep",
        "groups": full["norm_num_groups"],
        "eps": full["norm_eps"],
        "time_shift": float(full["freq_shift"]),
        "sin_first": not full["flip_sin_to_cos"],
        "pad_after": padding == 0,
        "dropout": full["dropout"],
    }


def shapes(net: UNetConfig, json: Mapping[str, Any]) -> Params:
    """The parameters of the U-Net of a config.json, as shapes."""
    return jax.eval_shape(lambda: UNet(net).init(jax.random.key(0), *inputs(net, json)))["params"]


def inputs(net: UNetConfig, json: Mapping[str, Any]) -> tuple[jax.Array, jax.Array, Cond]:
    """What a network of this config takes: one small picture, a time, a condition; all zeros."""
    side = net.patch * 2 ** (len(net.channels) - 1)
    crossed = "cross" in (*net.attention, net.mid_attention)
    defaults = _CONDITION if crossed else _PIXELS
    context = json.get("cross_attention_dim", defaults.get("cross_attention_dim"))
    cond = Cond(
        context=jnp.zeros((1, 1, context)) if crossed else None,
        label=jnp.zeros(1, jnp.int32) if net.labels else None,
        pooled=jnp.zeros((1, json["projection_class_embeddings_input_dim"])) if net.pooled else None,
        augment=jnp.zeros(1) if net.augment else None,
    )
    return jnp.zeros((1, side, side, json.get("in_channels", defaults["in_channels"]))), jnp.zeros(1), cond
