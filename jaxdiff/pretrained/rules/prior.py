"""diffusers' PriorTransformer and UnCLIPTextProjModel: names, and config.json."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.prior import Prior, PriorConfig, TextProjection, TextProjectionConfig
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.fields import Field, one_of, optional, settle, whole
from jaxdiff.pretrained.rules.unet import EMBEDDING, QKV
from jaxdiff.typing import Params

_BLOCK = (
    Rule("norm1", "norm1", "norm"),
    *under("attn1", "attn", QKV),
    Rule("norm3", "norm2", "norm"),
    Rule("ff.net.0.proj", "fc1", "dense"),
    Rule("ff.net.2", "fc2", "dense"),
)
RULES: Rules = (
    *under("time_embedding", "time_mlp", EMBEDDING),
    Rule("proj_in", "proj_in", "dense"),
    Rule("embedding_proj_norm", "norm_vector", "norm"),
    Rule("embedding_proj", "vector", "dense"),
    Rule("encoder_hidden_states_proj", "text", "dense"),
    Rule("positional_embedding", "position", "same"),
    Rule("prd_embedding", "last", "same"),
    *under("transformer_blocks.{}", "block_{}", _BLOCK),
    Rule("norm_in", "norm_in", "norm"),
    Rule("norm_out", "norm_out", "norm"),
    Rule("proj_to_clip_embeddings", "proj_out", "dense"),
    Rule("clip_mean", "clip_mean", "same"),
    Rule("clip_std", "clip_std", "same"),
)
PROJECTION_RULES: Rules = (
    Rule("learned_classifier_free_guidance_embeddings", "no_embed", "same"),
    Rule("embedding_proj", "time_vector", "dense"),
    Rule("clip_image_embeddings_project_to_time_embeddings", "time_embed", "dense"),
    Rule("clip_extra_context_tokens_proj", "tokens", "dense"),
    Rule("encoder_hidden_states_proj", "text", "dense"),
    Rule("text_encoder_hidden_states_norm", "norm_text", "norm"),
)
_FIELDS: dict[str, Field] = {
    "num_attention_heads": whole(32),
    "attention_head_dim": whole(64),
    "num_layers": whole(20, most=1000),
    "embedding_dim": whole(768),
    "num_embeddings": whole(77, 0),
    "additional_embeddings": whole(4),
    "time_embed_act_fn": one_of("silu"),
    "norm_in_type": one_of(None, "layer"),
    "embedding_proj_norm_type": one_of(None, "layer"),
    "encoder_hid_proj_type": one_of("linear", None),
    "added_emb_type": one_of("prd", None),
    "time_embed_dim": optional(whole(1)),
    "embedding_proj_dim": optional(whole(1)),
    "clip_embed_dim": optional(whole(1)),
}
_PROJECTION_FIELDS: dict[str, Field] = {
    "clip_extra_context_tokens": whole(4),
    "clip_embeddings_dim": whole(768),
    "time_embed_dim": optional(whole(1)),
    "cross_attention_dim": optional(whole(1)),
}
HARMLESS = {"dropout": "of training"}
"""Fields that change nothing, and why."""


def config(json: Mapping[str, Any]) -> PriorConfig:
    """The numbers of a PriorTransformer.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    name = "PriorTransformer"
    full = settle(name, json, _FIELDS, HARMLESS)
    width, wide = full["num_attention_heads"] * full["attention_head_dim"], full["embedding_dim"]
    if full["time_embed_dim"] not in (None, width):
        raise ValueError(f"{name}: time_embed_dim={full['time_embed_dim']} is not supported, only {width}")
    if full["clip_embed_dim"] not in (None, wide):
        raise ValueError(f"{name}: clip_embed_dim={full['clip_embed_dim']} is not supported, only {wide}: it diffuses")
    last, states = full["added_emb_type"] == "prd", full["encoder_hid_proj_type"] == "linear"
    if not states or full["additional_embeddings"] != 3 + last:
        raise ValueError(
            f"{name}: encoder_hid_proj_type={full['encoder_hid_proj_type']!r} with additional_embeddings="
            f"{full['additional_embeddings']}: supported are 'linear' with {3 + last}"
        )
    return PriorConfig(
        embed=wide,
        text=wide,
        vector=full["embedding_proj_dim"] or wide,
        length=full["num_embeddings"],
        layers=full["num_layers"],
        heads=full["num_attention_heads"],
        head_dim=full["attention_head_dim"],
        last=last,
        norm_in=full["norm_in_type"] == "layer",
        norm_vector=full["embedding_proj_norm_type"] == "layer",
    )


def shapes(net: PriorConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    zeros = [jnp.zeros(shape) for shape in ((1, net.embed), (1,), (1, net.vector), (1, net.length, net.text))]
    return jax.eval_shape(lambda: Prior(net).init(jax.random.key(0), *zeros))["params"]


def projection_config(json: Mapping[str, Any]) -> TextProjectionConfig:
    """The numbers of an UnCLIPTextProjModel; the width of the text's states is the embeddings'.

    Raises:
      ValueError: names the fields whose values are not supported, or missing.
    """
    name = "UnCLIPTextProjModel"
    full = settle(name, json, _PROJECTION_FIELDS, {})
    if missing := [field for field, value in full.items() if value is None]:
        raise ValueError(f"{name}: {', '.join(missing)} is missing")
    wide = full["clip_embeddings_dim"]
    return TextProjectionConfig(
        width=full["cross_attention_dim"],
        time=full["time_embed_dim"],
        tokens=full["clip_extra_context_tokens"],
        embed=wide,
        text=wide,
    )


def projection_shapes(net: TextProjectionConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    zeros = [jnp.zeros(shape) for shape in ((1, net.embed), (1, net.embed), (1, 1, net.text))]
    return jax.eval_shape(lambda: TextProjection(net).init(jax.random.key(0), *zeros))["params"]
