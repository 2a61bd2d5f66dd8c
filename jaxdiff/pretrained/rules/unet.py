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
from jaxdiff.pretrained.rules.fields import (
    Field,
    brief,
    divides,
    each,
    either,
    flag,
    number,
    one_of,
    optional,
    per_level,
    same_length,
    settle,
    text,
    whole,
)
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


_LEVELS = {"least": 0, "most": 100}
_SHARED: dict[str, Field] = {
    "sample_size": optional(either(whole(None), each(whole(1), ()))),
    "freq_shift": number(0.0),
    "flip_sin_to_cos": flag(True),
    "layers_per_block": whole(2, most=100),
    "downsample_padding": one_of(1, 0),
    "norm_num_groups": whole(32),
    "norm_eps": number(1e-5, 0.0),
    "dropout": number(0.0, 0.0),
    "num_class_embeds": optional(whole(1)),
    "attention_head_dim": whole(8),
    "time_embedding_dim": optional(whole(1)),
    "act_fn": one_of("silu", "swish"),
    "center_input_sample": one_of(False),
    "mid_block_scale_factor": one_of(1),
    "time_embedding_type": one_of("positional"),
}
_CONDITION = {
    **_SHARED,
    "in_channels": whole(4),
    "out_channels": whole(4),
    "block_out_channels": each(whole(1), (320, 640, 1280, 1280)),
    "down_block_types": each(text(""), ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)),
    "up_block_types": each(text(""), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3),
    "attention_head_dim": either(whole(8), each(whole(1), ())),
    "only_cross_attention": either(flag(False), each(flag(False), ())),
    "cross_attention_dim": whole(1280),
    "transformer_layers_per_block": either(whole(1, **_LEVELS), each(whole(1, **_LEVELS), ())),
    "use_linear_projection": flag(False),
    "addition_embed_type": one_of(None, "text_time"),
    "addition_time_embed_dim": optional(whole(1)),
    "projection_class_embeddings_input_dim": optional(whole(1)),
    "class_embed_type": one_of(None, "timestep", "projection"),
    "mid_block_type": one_of("UNetMidBlock2DCrossAttn"),
    "resnet_time_scale_shift": one_of("default"),
    "attention_type": one_of("default"),
    "class_embeddings_concat": one_of(False),
    "conv_in_kernel": one_of(3),
    "conv_out_kernel": one_of(3),
    "dual_cross_attention": one_of(False),
    "resnet_out_scale_factor": one_of(1),
    "resnet_skip_time_act": one_of(False),
}
_PIXELS = {
    **_SHARED,
    "in_channels": whole(3),
    "out_channels": whole(3),
    "block_out_channels": each(whole(1), (224, 448, 672, 896)),
    "down_block_types": each(text(""), ("DownBlock2D",) + ("AttnDownBlock2D",) * 3),
    "up_block_types": each(text(""), ("AttnUpBlock2D",) * 3 + ("UpBlock2D",)),
    "attention_head_dim": optional(whole(1)),
    "downsample_type": one_of("conv", "resnet"),
    "upsample_type": one_of("conv", "resnet"),
    "resnet_time_scale_shift": one_of("default", "scale_shift"),
    "add_attention": flag(True),
    "attn_norm_num_groups": optional(whole(1)),
    "mid_block_type": one_of("UNetMidBlock2D"),
    "class_embed_type": one_of(None, "timestep"),
}
_PIXELS["attention_head_dim"] = dataclasses.replace(_PIXELS["attention_head_dim"], default=8)
HARMLESS = {
    "upcast_attention": "the softmax is float32 here in any case",
    "mid_block_only_cross_attention": "of other middle blocks than the one that is served",
    "addition_embed_type_num_heads": "of other kinds of addition_embed_type than the one that is served",
    "num_train_timesteps": "of a learned time embedding, which is not served",
}
"""Fields that change nothing of what is served, and why."""
_ATTENTION = {
    "DownBlock2D": "none",
    "CrossAttnDownBlock2D": "cross",
    "AttnDownBlock2D": "self",
    "ResnetDownsampleBlock2D": "none",
}


def condition_config(json: Mapping[str, Any], name: str = "UNet2DConditionModel") -> UNetConfig:
    """The numbers of a UNet2DConditionModel, or of what `name` shares with it.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle(name, json, _CONDITION, HARMLESS)
    levels = len(full["block_out_channels"])
    same_length(name, full, "block_out_channels", "attention_head_dim", "transformer_layers_per_block")
    same_length(name, full, "block_out_channels", "only_cross_attention")
    sized = full["addition_embed_type"] == "text_time"
    if sized and (full["freq_shift"] or full["addition_time_embed_dim"] is None):
        raise ValueError(f"{name}: addition_embed_type='text_time' wants addition_time_embed_dim, and freq_shift=0")
    if (sized or full["class_embed_type"] == "projection") and full["projection_class_embeddings_input_dim"] is None:
        raise ValueError(f"{name}: projection_class_embeddings_input_dim is missing")
    only = full["only_cross_attention"]
    if full["addition_embed_type"] and full["class_embed_type"] == "projection":
        raise ValueError(f"{name}: addition_embed_type and class_embed_type='projection' do not go together here")
    common = _common(name, full, {"DownBlock2D", "CrossAttnDownBlock2D"})
    heads = per_level(full["attention_head_dim"], levels)
    for i, (width, kind) in enumerate(zip(common["channels"], common["attention"], strict=True)):
        if kind == "cross" or i == levels - 1:
            divides(name, "attention_head_dim", heads[i], "block_out_channels", [width])
    return UNetConfig(
        **common,
        mid_attention="cross",
        heads=heads,
        depth=per_level(full["transformer_layers_per_block"], levels),
        pooled=sized or full["class_embed_type"] == "projection",
        self_attends_context=tuple(i for i, wanted in enumerate(per_level(only, levels)) if wanted),
    )


def pixel_config(json: Mapping[str, Any]) -> UNetConfig:
    """The numbers of a UNet2DModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    name = "UNet2DModel"
    full = settle(name, json, _PIXELS, HARMLESS)
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
    if width is not None:
        looks = [c for c, block in zip(channels, full["down_block_types"], strict=False) if block.startswith("Attn")]
        looks += channels[-1:] if full["add_attention"] else ()
        divides(name, "attention_head_dim", width, "block_out_channels", looks)
    wrong = {"conv": "ResnetDownsampleBlock2D", "resnet": "DownBlock2D"}[full["downsample_type"]]
    return UNetConfig(
        **_common(name, full, set(kinds) - {wrong}),
        mid_attention="self" if full["add_attention"] else "none",
        heads=tuple(1 if width is None else max(c // width, 1) for c in channels),
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
    return _expressed(net, json, pixel_config(json))


def condition_json(net: UNetConfig, in_channels: int, context: int) -> dict[str, Any]:
    """config.json of the UNet2DConditionModel that a U-Net of ours is: what `condition_config` reads back as `net`.

    Args:
      net: the U-Net.
      in_channels: channels that it takes.
      context: width of the text states.

    Raises:
      ValueError: if that class cannot express it; names the fields.
    """
    down = ["CrossAttnDownBlock2D" if kind == "cross" else "DownBlock2D" for kind in net.attention]
    json: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": in_channels,
        "out_channels": net.out_channels,
        "block_out_channels": list(net.channels),
        "layers_per_block": net.layers,
        "down_block_types": down,
        "up_block_types": mirror(down),
        "attention_head_dim": list(net.heads),  # the number of heads, whatever its name
        "transformer_layers_per_block": list(net.depth),
        "only_cross_attention": [i in net.self_attends_context for i in range(len(net.channels))],
        "cross_attention_dim": context,
        "norm_num_groups": net.groups,
        "norm_eps": net.eps,
        "dropout": net.dropout,
        "freq_shift": int(net.time_shift),
        "flip_sin_to_cos": not net.sin_first,
        "downsample_padding": 0 if net.pad_after else 1,
        "class_embed_type": "timestep" if net.augment else None,
        "num_class_embeds": net.labels + 1 if net.labels else None,
    }
    return _expressed(net, json, condition_config(json))


def _expressed(net: UNetConfig, json: dict[str, Any], back: UNetConfig) -> dict[str, Any]:
    """The config that is read back as `net`, but for how it computes."""
    back = dataclasses.replace(back, remat=net.remat, dtype=net.dtype)
    lost = [field.name for field in dataclasses.fields(net) if getattr(net, field.name) != getattr(back, field.name)]
    if lost:
        given = ", ".join(f"{name}={getattr(net, name)}" for name in lost)
        raise ValueError(
            f"a {json['_class_name']} of diffusers cannot have {given}: such a network stays in jaxdiff's own format"
        )
    return json


def _common(name: str, full: Mapping[str, Any], kinds: set[str]) -> dict[str, Any]:
    down, up, channels = full["down_block_types"], full["up_block_types"], tuple(full["block_out_channels"])
    same_length(name, full, "block_out_channels", "down_block_types")
    for block in down:
        if block not in kinds:
            raise ValueError(f"{name}: down_block_types has {brief(block)}, supported are {', '.join(sorted(kinds))}")
    if list(up) != mirror(down):
        raise ValueError(
            f"{name}: up_block_types={brief(list(up))}: only the mirror of down_block_types, {brief(mirror(down))}"
        )
    if full["time_embedding_dim"] not in (None, 4 * channels[0]):
        raise ValueError(f"{name}: time_embedding_dim={full['time_embedding_dim']}, supported is {4 * channels[0]}")
    divides(name, "norm_num_groups", full["norm_num_groups"], "block_out_channels", channels)
    padding = full["downsample_padding"]
    by_label = full["class_embed_type"] is None and full["num_class_embeds"]
    return {
        "out_channels": full["out_channels"],
        "channels": channels,
        "layers": full["layers_per_block"],
        "attention": tuple(_ATTENTION[block] for block in down),
        "labels": full["num_class_embeds"] - 1 if by_label else 0,
        "augment": full["class_embed_type"] == "timestep",
        "groups": full["norm_num_groups"],
        "eps": float(full["norm_eps"]),
        "time_shift": float(full["freq_shift"]),
        "sin_first": not full["flip_sin_to_cos"],
        "pad_after": padding == 0,
        "dropout": float(full["dropout"]),
    }


def shapes(net: UNetConfig, json: Mapping[str, Any]) -> Params:
    """The parameters of the U-Net of a config.json, as shapes."""
    return jax.eval_shape(lambda: UNet(net).init(jax.random.key(0), *inputs(net, json)))["params"]


def inputs(net: UNetConfig, json: Mapping[str, Any]) -> tuple[jax.Array, jax.Array, Cond]:
    """What a network of this config takes: one small picture, a time, a condition; all zeros."""
    side = net.patch * 2 ** (len(net.channels) - 1)
    crossed = "cross" in (*net.attention, net.mid_attention)
    given = lambda field: json.get(field, (_CONDITION if crossed else _PIXELS)[field].default)
    cond = Cond(
        context=jnp.zeros((1, 1, given("cross_attention_dim"))) if crossed else None,
        label=jnp.zeros(1, jnp.int32) if net.labels else None,
        pooled=jnp.zeros((1, json["projection_class_embeddings_input_dim"])) if net.pooled else None,
        augment=jnp.zeros(1) if net.augment else None,
    )
    return jnp.zeros((1, side, side, given("in_channels"))), jnp.zeros(1), cond
