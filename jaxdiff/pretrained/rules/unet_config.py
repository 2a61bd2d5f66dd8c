"""config.json of diffusers' UNet2DConditionModel (Stable Diffusion, IF, unCLIP) and UNet2DModel (DDPM, LDM), and back.

What it calls `attention_head_dim` is the number of heads in Stable Diffusion's blocks and the width of one elsewhere.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdiff.models.unet import UNetConfig
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

_LEVELS = {"least": 0, "most": 100}
_SHARED: dict[str, Field] = {
    "sample_size": optional(either(whole(None), each(whole(1), ()))),
    "freq_shift": number(0.0),
    "flip_sin_to_cos": flag(True),
    "downsample_padding": one_of(1, 0),
    "norm_num_groups": whole(32),
    "norm_eps": number(1e-5, 0.0),
    "dropout": number(0.0, 0.0),
    "num_class_embeds": optional(whole(1)),
    "attention_head_dim": whole(8),
    "time_embedding_dim": optional(whole(1)),
    "act_fn": one_of("silu", "swish", "gelu"),
    "center_input_sample": one_of(False),
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
    "addition_embed_type": one_of(None, "text_time", "text", "image", "image_hint", "text_image"),
    "addition_embed_type_num_heads": whole(64),
    "encoder_hid_dim": optional(whole(1)),
    "encoder_hid_dim_type": one_of(None, "text_proj", "image_proj", "text_image_proj"),
    "addition_time_embed_dim": optional(whole(1)),
    "projection_class_embeddings_input_dim": optional(whole(1)),
    "class_embed_type": one_of(None, "timestep", "projection", "identity"),
    "layers_per_block": either(whole(2, most=100), each(whole(1, most=100), ())),
    "mid_block_type": one_of("UNetMidBlock2DCrossAttn", "UNetMidBlock2DSimpleCrossAttn"),
    "mid_block_scale_factor": number(1.0, 1e-3),
    "mid_block_only_cross_attention": optional(flag(False)),
    "cross_attention_norm": one_of(None, "group_norm"),
    "resnet_time_scale_shift": one_of("default", "scale_shift"),
    "time_embedding_act_fn": one_of(None, "silu", "swish", "gelu"),
    "timestep_post_act": one_of(None),
    "time_cond_proj_dim": optional(whole(1)),
    "reverse_transformer_layers_per_block": one_of(None),
    "attention_type": one_of("default"),
    "class_embeddings_concat": one_of(False),
    "conv_in_kernel": one_of(3),
    "conv_out_kernel": one_of(3),
    "dual_cross_attention": one_of(False),
    "resnet_out_scale_factor": number(1.0, 1e-3),
    "resnet_skip_time_act": flag(False),
}
_PIXELS = {
    **_SHARED,
    "layers_per_block": whole(2, most=100),
    "mid_block_scale_factor": one_of(1),
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
    "num_train_timesteps": "of a learned time embedding, which is not served",
}
"""Fields that change nothing of what is served, and why."""
_ATTENTION = {
    "DownBlock2D": "none",
    "CrossAttnDownBlock2D": "cross",
    "AttnDownBlock2D": "self",
    "ResnetDownsampleBlock2D": "none",
    "SimpleCrossAttnDownBlock2D": "joint",
}
_PLAIN, _SIMPLE = {"DownBlock2D", "CrossAttnDownBlock2D"}, {"ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"}
_TOKENS = {None: "", "text_proj": "text", "image_proj": "image", "text_image_proj": "text_image"}
_ACTIVATIONS = {None: "", "silu": "silu", "swish": "silu", "gelu": "gelu"}


def condition_config(json: Mapping[str, Any], name: str = "UNet2DConditionModel") -> UNetConfig:
    """Returns the numbers of a UNet2DConditionModel, or of what `name` shares with it.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle(name, json, _CONDITION, HARMLESS)
    levels = len(full["block_out_channels"])
    listed = ("attention_head_dim", "transformer_layers_per_block", "only_cross_attention", "layers_per_block")
    same_length(name, full, "block_out_channels", *listed)
    simple = full["mid_block_type"] == "UNetMidBlock2DSimpleCrossAttn"
    common = _common(name, full, _SIMPLE if simple else _PLAIN)
    layers = full["layers_per_block"]
    several = isinstance(layers, list | tuple)
    return UNetConfig(
        **{**common, **(_simple if simple else _transformers)(name, full, common), **_steered(name, full)},
        layers=max(layers) if several else layers,
        level_layers=tuple(layers) if several and len(set(layers)) > 1 else (),
        depth=per_level(full["transformer_layers_per_block"], levels),
        scale_shift=full["resnet_time_scale_shift"] == "scale_shift",
        mid_rescale=0.0 if full["mid_block_scale_factor"] == 1 else float(full["mid_block_scale_factor"]),
        time_act=_ACTIVATIONS[full["time_embedding_act_fn"]],
        guidance_width=full["time_cond_proj_dim"] or 0,
    )


def _steered(name: str, full: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what is added to the time, and what makes the context."""
    adds, label, width = full["addition_embed_type"], full["class_embed_type"], full["encoder_hid_dim"]
    sized, numbers = adds == "text_time", full["projection_class_embeddings_input_dim"]
    if sized and (full["freq_shift"] or full["addition_time_embed_dim"] is None):
        raise ValueError(f"{name}: addition_embed_type='text_time' wants addition_time_embed_dim, and freq_shift=0")
    if (sized or label == "projection") and numbers is None:
        raise ValueError(f"{name}: projection_class_embeddings_input_dim is missing")
    if adds and label in ("projection", "identity"):
        raise ValueError(f"{name}: addition_embed_type and class_embed_type={label!r} do not go together here")
    tokens = full["encoder_hid_dim_type"] or ("text_proj" if width else None)
    hint, adds = adds == "image_hint", "image" if adds == "image_hint" else adds
    if width is None and (tokens or adds == "image"):
        raise ValueError(f"{name}: encoder_hid_dim is missing")
    if (tokens == "image_proj") != (adds == "image"):
        raise ValueError(
            f"{name}: encoder_hid_dim_type={tokens!r} with addition_embed_type={full['addition_embed_type']!r}: "
            "supported are image_proj with image or image_hint, and neither"
        )
    return {
        "pooled": sized or label == "projection",
        "addition": "plain" if label == "identity" else {None: "", "text_time": ""}.get(adds, adds),
        "pool_heads": full["addition_embed_type_num_heads"],
        "tokens": _TOKENS[tokens],
        "hint": hint,
        "context_width": full["cross_attention_dim"] if tokens else 0,
    }


def _transformers(name: str, full: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attention of Stable Diffusion's blocks."""
    served = {"resnet_out_scale_factor": 1, "resnet_skip_time_act": False, "cross_attention_norm": None}
    for field, value in served.items():
        if full[field] != value:
            raise ValueError(f"{name}: {field}={full[field]} is not supported with {full['mid_block_type']}")
    if full["mid_block_only_cross_attention"]:
        raise ValueError(f"{name}: mid_block_only_cross_attention is not supported with {full['mid_block_type']}")
    levels = len(common["channels"])
    heads = per_level(full["attention_head_dim"], levels)
    for i, (width, kind) in enumerate(zip(common["channels"], common["attention"], strict=True)):
        if kind == "cross" or i == levels - 1:
            divides(name, "attention_head_dim", heads[i], "block_out_channels", [width])
    only = per_level(full["only_cross_attention"], levels)
    return {
        "mid_attention": "cross",
        "heads": heads,
        "self_attends_context": tuple(i for i, wanted in enumerate(only) if wanted),
    }


def _simple(name: str, full: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attention of Imagen's and unCLIP's blocks, for which attention_head_dim is the width of a head."""
    levels, only, mid = len(common["channels"]), full["only_cross_attention"], full["mid_block_only_cross_attention"]
    widths = per_level(full["attention_head_dim"], levels)
    if len(set(widths)) > 1:
        raise ValueError(f"{name}: attention_head_dim={brief(list(widths))}: only one width for all levels")
    attends = [kind != "none" for kind in common["attention"]]
    attends[-1] = True
    looks = [c for c, wanted in zip(common["channels"], attends, strict=True) if wanted]
    divides(name, "attention_head_dim", widths[0], "block_out_channels", looks)
    alone = bool(only) if mid is None and isinstance(only, bool) else bool(mid)
    kinds = zip(common["attention"], per_level(only, levels), strict=True)
    return {
        "attention": tuple("context" if kind == "joint" and wanted else kind for kind, wanted in kinds),
        "mid_attention": "context" if alone else "joint",
        "heads": tuple(max(c // w, 1) for c, w in zip(common["channels"], widths, strict=True)),
        "context_norm": full["cross_attention_norm"] is not None,
        "rescale": float(full["resnet_out_scale_factor"]),
        "bare_time": full["resnet_skip_time_act"],
        "adm_resample": True,
    }


def pixel_config(json: Mapping[str, Any]) -> UNetConfig:
    """Returns the numbers of a UNet2DModel.

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
        layers=full["layers_per_block"],
        mid_attention="self" if full["add_attention"] else "none",
        heads=tuple(1 if width is None else max(c // width, 1) for c in channels),
        depth=(1,) * len(channels),
        scale_shift=scale_shift,
        adm_resample=full["downsample_type"] == "resnet",
    )


def mirror(down: Sequence[str]) -> list[str]:
    """Returns the up blocks that go with down blocks."""
    return [block.replace("Down", "Up") for block in reversed(down)]


def pixel_json(net: UNetConfig, in_channels: int) -> dict[str, Any]:
    """Returns the config.json of a UNet2DModel: what `pixel_config` reads back as `net`.

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
    """Returns the config.json of a UNet2DConditionModel: what `condition_config` reads back as `net`.

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
        "mid_block_scale_factor": net.mid_rescale or net.rescale,
        "norm_num_groups": net.groups,
        "norm_eps": net.eps,
        "dropout": net.dropout,
        "freq_shift": int(net.time_shift),
        "flip_sin_to_cos": not net.sin_first,
        "downsample_padding": 0 if net.pad_after else 1,
        "class_embed_type": "timestep" if net.augment else None,
        "num_class_embeds": net.labels + 1 if net.labels else None,
        "time_cond_proj_dim": net.guidance_width or None,
    }
    return _expressed(net, json, condition_config(json))


def _expressed(net: UNetConfig, json: dict[str, Any], back: UNetConfig) -> dict[str, Any]:
    """Returns the config that is read back as `net`, but for how it computes."""
    back = dataclasses.replace(back, remat=net.remat, dtype=net.dtype)
    lost = [field.name for field in dataclasses.fields(net) if getattr(net, field.name) != getattr(back, field.name)]
    if lost:
        listed = ", ".join(f"{name}={getattr(net, name)}" for name in lost)
        raise ValueError(
            f"a {json['_class_name']} of diffusers cannot have {listed}: such a network stays in jaxdiff's own format"
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
    divides(name, "norm_num_groups", full["norm_num_groups"], "block_out_channels", channels)
    padding = full["downsample_padding"]
    by_label = full["class_embed_type"] is None and full["num_class_embeds"]
    return {
        "out_channels": full["out_channels"],
        "channels": channels,
        "attention": tuple(_ATTENTION[block] for block in down),
        "labels": full["num_class_embeds"] - 1 if by_label else 0,
        "augment": full["class_embed_type"] == "timestep",
        "groups": full["norm_num_groups"],
        "eps": float(full["norm_eps"]),
        "act": _ACTIVATIONS[full["act_fn"]],
        "embed_width": 0 if full["time_embedding_dim"] in (None, 4 * channels[0]) else full["time_embedding_dim"],
        "time_shift": float(full["freq_shift"]),
        "sin_first": not full["flip_sin_to_cos"],
        "pad_after": padding == 0,
        "dropout": float(full["dropout"]),
    }


def default(field: str, crossed: bool) -> Any:
    """Returns what the absence of a field means, in a UNet2DConditionModel (`crossed`) or a UNet2DModel."""
    return (_CONDITION if crossed else _PIXELS)[field].default
