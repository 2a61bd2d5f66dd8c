"""transformers' CLIPTextModel, with or without projection: names, and config.json.

Files before transformers 5 (all published ones) begin names with `text_model.`; those it writes for the model without
a projection do not. Both are read, the former is written; transformers reads both.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

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


def clip_settle(name: str, json: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`settle` for transformers' config.json, of whose many fields most say nothing about the network."""
    fixed = {"hidden_act": ("quick_gelu", "gelu")}
    return settle(name, {k: v for k, v in json.items() if k in fixed or k in defaults}, defaults, fixed)


def text_shapes(net: ClipTextConfig, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    tokens = jnp.zeros((1, net.length), jnp.int32)
    return jax.eval_shape(lambda: ClipText(net).init(jax.random.key(0), tokens))["params"]
