"""transformers' CLIP encoders of text and pictures, and diffusers' safety checker: names, and config.json.

Files before transformers 5 (all published ones) begin text names with `text_model.`; those it writes for the model
without a projection do not. Both are read, the former is written; transformers reads both.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.image_clip import ClipImage, ClipImageConfig, SafetyChecker
from jaxdiff.models.text_clip import ClipText, ClipTextConfig
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.fields import settle
from jaxdiff.typing import Params

BLOCK = (
    Rule("layer_norm1", "norm1", "norm"),
    Rule("self_attn.q_proj", "attn/q", "dense"),
    Rule("self_attn.k_proj", "attn/k", "dense"),
    Rule("self_attn.v_proj", "attn/v", "dense"),
    Rule("self_attn.out_proj", "attn/out", "dense"),
    Rule("layer_norm2", "norm2", "norm"),
    Rule("mlp.fc1", "fc1", "dense"),
    Rule("mlp.fc2", "fc2", "dense"),
)
_TEXT = (
    Rule("embeddings.token_embedding", "token_embed", "embed"),
    Rule("embeddings.position_embedding.weight", "position_embed", "same"),
    *under("encoder.layers.{}", "block_{}", BLOCK),
    Rule("final_layer_norm", "norm_out", "norm"),
    Rule("embeddings.position_ids", "", "skip"),
)
TEXT_RULES: Rules = (*under("text_model", "", _TEXT), *_TEXT, Rule("text_projection", "projection", "dense"))
_IMAGE = (
    Rule("embeddings.class_embedding", "class_embed", "same"),
    Rule("embeddings.patch_embedding", "patch_embed", "conv"),
    Rule("embeddings.position_embedding.weight", "position_embed", "same"),
    Rule("pre_layrnorm", "norm_in", "norm"),
    *under("encoder.layers.{}", "block_{}", BLOCK),
    Rule("post_layernorm", "norm_out", "norm"),
    Rule("embeddings.position_ids", "", "skip"),
)
_PROJECTION = Rule("visual_projection", "projection", "dense")
IMAGE_RULES: Rules = (*under("vision_model", "", _IMAGE), _PROJECTION)
SAFETY_RULES: Rules = (
    *under("vision_model.vision_model", "image", _IMAGE),
    *under("vision_model", "image", _IMAGE),  # as transformers 5 writes it
    *under("", "image", [_PROJECTION]),
    Rule("concept_embeds", "concepts", "same"),
    Rule("concept_embeds_weights", "limits", "same"),
    Rule("special_care_embeds", "special", "same"),
    Rule("special_care_embeds_weights", "special_limits", "same"),
)
_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}


def text_config(json: Mapping[str, Any], *, projection: bool) -> ClipTextConfig:
    """The numbers of a CLIPTextModel, or with `projection` of a CLIPTextModelWithProjection.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = clip_settle("CLIPTextModelWithProjection" if projection else "CLIPTextModel", json, _DEFAULTS)
    end = full["eos_token_id"]
    return ClipTextConfig(
        vocabulary=full["vocab_size"],
        length=full["max_position_embeddings"],
        width=full["hidden_size"],
        mlp=full["intermediate_size"],
        layers=full["num_hidden_layers"],
        heads=full["num_attention_heads"],
        activation=full["hidden_act"],
        projection=full["projection_dim"] if projection else 0,
        # published configs say 2, which is no end token: transformers then takes the largest id, and so do we
        end=None if end == 2 else end,
        eps=full["layer_norm_eps"],
    )


_IMAGE_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "layer_norm_eps": 1e-5,
}


def image_config(json: Mapping[str, Any]) -> ClipImageConfig:
    """The numbers of a CLIPVisionModelWithProjection.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = clip_settle("CLIPVisionModelWithProjection", json, _IMAGE_DEFAULTS)
    return ClipImageConfig(
        size=full["image_size"],
        patch=full["patch_size"],
        width=full["hidden_size"],
        mlp=full["intermediate_size"],
        layers=full["num_hidden_layers"],
        heads=full["num_attention_heads"],
        activation=full["hidden_act"],
        projection=full["projection_dim"],
        eps=full["layer_norm_eps"],
    )


def safety_config(json: Mapping[str, Any]) -> ClipImageConfig:
    """The numbers of a StableDiffusionSafetyChecker: its image encoder's."""
    return image_config({**json["vision_config"], "projection_dim": json.get("projection_dim", 512)})


def image_shapes(net: ClipImageConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    pixels = jnp.zeros((1, net.size, net.size, 3))
    return jax.eval_shape(lambda: ClipImage(net).init(jax.random.key(0), pixels))["params"]


def safety_shapes(net: ClipImageConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    pixels = jnp.zeros((1, net.size, net.size, 3))
    return jax.eval_shape(lambda: SafetyChecker(net).init(jax.random.key(0), pixels))["params"]


def clip_settle(name: str, json: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`settle` for transformers' config.json, of whose many fields most say nothing about the network."""
    fixed = {"hidden_act": ("quick_gelu", "gelu")}
    return settle(name, {k: v for k, v in json.items() if k in fixed or k in defaults}, defaults, fixed)


def text_shapes(net: ClipTextConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    tokens = jnp.zeros((1, net.length), jnp.int32)
    return jax.eval_shape(lambda: ClipText(net).init(jax.random.key(0), tokens))["params"]
