"""diffusers' UNet2DConditionModel and UNet2DModel: names of tensors; `unet_config` has config.json."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.unet_config import default
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
JOINT = (
    Rule("group_norm", "norm", "norm"),
    Rule("norm_cross", "norm_context", "norm"),
    *under("", "attn", QKV),
    Rule("add_k_proj", "attn/k_context", "dense"),
    Rule("add_v_proj", "attn/v_context", "dense"),
)
ADDITIONS = {
    "text": (
        Rule("norm1", "text_embed/norm1", "norm"),
        Rule("pool.positional_embedding", "text_embed/pool/position", "same"),
        *(Rule(f"pool.{name}_proj", f"text_embed/pool/{name}", "dense") for name in "qkv"),
        Rule("proj", "text_embed/proj", "dense"),
        Rule("norm2", "text_embed/norm2", "norm"),
    ),
    "image": (Rule("image_proj", "image_embed/proj", "dense"), Rule("image_norm", "image_embed/norm", "norm")),
    "text_image": (
        Rule("text_proj", "text_embed/proj", "dense"),
        Rule("text_norm", "text_embed/norm", "norm"),
        Rule("image_proj", "image_embed", "dense"),
    ),
}
"""Gives the names of what `addition` adds, below add_embedding."""
HINT = (
    *(Rule(f"input_hint_block.{2 * n}", f"hint/conv_{n}", "conv") for n in range(7)),
    Rule("input_hint_block.14", "hint/conv_out", "conv"),
)
TOKENS = {
    "text": (Rule("encoder_hid_proj", "context_proj", "dense"),),
    "image": (
        Rule("encoder_hid_proj.image_embeds", "context_image/tokens", "dense"),
        Rule("encoder_hid_proj.norm", "context_image/norm", "norm"),
    ),
    "text_image": (
        Rule("encoder_hid_proj.image_embeds", "context_image/tokens", "dense"),
        Rule("encoder_hid_proj.text_proj", "context_proj", "dense"),
    ),
}
EMBEDDING = (Rule("linear_1", "fc1", "dense"), Rule("linear_2", "fc2", "dense"))


def transformer(projection: str) -> Rules:
    """Returns a spatial transformer whose projections are of kind `conv` or `dense`."""
    return (
        Rule("norm", "norm", "norm"),
        Rule("proj_in", "proj_in", projection),
        *under("transformer_blocks.{}", "block_{}", BLOCK),
        Rule("proj_out", "proj_out", projection),
    )


def encoder_rules(net: UNetConfig, json: Mapping[str, Any]) -> Rules:
    """Returns the rules of embeddings, way down and middle: what a ControlNet shares with a U-Net."""
    attention = _attention(net, json)
    return (
        Rule("conv_in", "conv_in", "conv"),
        *under("time_embedding", "time_mlp", EMBEDDING),
        Rule("time_embedding.cond_proj", "guidance_proj", "dense"),
        *under("add_embedding" if json.get("addition_embed_type") else "class_embedding", "pooled_mlp", EMBEDDING),
        *under("add_embedding", "", (*ADDITIONS.get(net.addition, ()), *(HINT if net.hint else ()))),
        *TOKENS.get(net.tokens, ()),
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
    """Returns the table of a U-Net with this config.json."""
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
    kinds = {*net.attention, net.mid_attention}
    if kinds & {"joint", "context"}:
        return JOINT
    if "cross" in kinds:
        return transformer("dense" if json.get("use_linear_projection") else "conv")
    return ATTENTION


def shapes(net: UNetConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters of the U-Net of a config.json, as shapes."""
    return jax.eval_shape(lambda: UNet(net).init(jax.random.key(0), *inputs(net, json)))["params"]


def inputs(net: UNetConfig, json: Mapping[str, Any]) -> tuple[jax.Array, jax.Array, Cond]:
    """Returns what a network of this config takes: one small picture, a time, a condition; all zeros."""
    side = net.patch * 2 ** (len(net.channels) - 1 + net.shifted)
    crossed = bool({"cross", "joint", "context"} & {*net.attention, net.mid_attention})
    field_of = lambda field: json.get(field, default(field, crossed))
    wide, hidden = field_of("cross_attention_dim") if crossed else 0, json.get("encoder_hid_dim")
    pooled = {"plain": net.embed_width or 4 * net.channels[0], "text_image": wide}.get(net.addition)
    pooled = json["projection_class_embeddings_input_dim"] if net.pooled else pooled
    seen = {"image": hidden, "text_image": wide}.get(net.tokens, wide if net.addition == "text_image" else None)
    cond = Cond(
        context=jnp.zeros((1, 1, hidden or wide)) if crossed and net.tokens != "image" else None,
        label=jnp.zeros(1, jnp.int32) if net.labels else None,
        pooled=jnp.zeros((1, pooled)) if pooled else None,
        augment=jnp.zeros(1) if net.augment else None,
        guidance=jnp.ones(1) if net.guidance_width else None,
        embed=jnp.zeros((1, seen)) if seen else None,
        image=jnp.zeros((1, 8 * side, 8 * side, 3)) if net.hint else None,
    )
    return jnp.zeros((1, side, side, field_of("in_channels") - 4 * net.hint)), jnp.zeros(1), cond
