"""diffusers' LDMBertModel: names, and config.json; its way back to words is left out."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.text_bert import BertConfig, BertText
from jaxdiff.pretrained.rules import Rule, Rules, clip, under
from jaxdiff.pretrained.rules.fields import Field, one_of, settle, whole
from jaxdiff.typing import Params

_BLOCK = (
    Rule("self_attn_layer_norm", "norm1", "norm"),
    *(Rule(f"self_attn.{name}_proj", f"attn/{name}", "dense") for name in ("q", "k", "v", "out")),
    Rule("final_layer_norm", "norm2", "norm"),
    Rule("fc1", "fc1", "dense"),
    Rule("fc2", "fc2", "dense"),
)
RULES: Rules = (
    Rule("model.embed_tokens", "token_embed", "embed"),
    Rule("model.embed_positions.weight", "position_embed", "same"),
    *under("model.layers.{}", "block_{}", _BLOCK),
    Rule("model.layer_norm", "norm_out", "norm"),
    Rule("to_logits.*", "", "skip"),
)
_FIELDS: dict[str, Field] = {
    "vocab_size": whole(30522),
    "max_position_embeddings": whole(77, 2),
    "d_model": whole(1280),
    "head_dim": whole(64),
    "encoder_ffn_dim": whole(5120),
    "encoder_layers": whole(32, most=1000),
    "encoder_attention_heads": whole(8),
    "activation_function": one_of("gelu"),
    "pad_token_id": one_of(0),
}
HARMLESS = {
    **{field: why for field, why in clip.HARMLESS.items() if field not in _FIELDS},
    **dict.fromkeys(
        ("dropout", "activation_dropout", "classifier_dropout", "encoder_layerdrop", "init_std"), "of training"
    ),
    "scale_embedding": "the reference's code does not read it",
    "num_hidden_layers": "encoder_layers says it",
    "hidden_size": "d_model says it",
    "num_attention_heads": "encoder_attention_heads says it",
    "use_cache": "of decoders",
}
"""Fields that change nothing of the encoder, and why."""


def config(json: Mapping[str, Any]) -> BertConfig:
    """Returns the numbers of an LDMBertModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle("LDMBertModel", json, _FIELDS, HARMLESS)
    return BertConfig(
        vocabulary=full["vocab_size"],
        length=full["max_position_embeddings"],
        width=full["d_model"],
        head_dim=full["head_dim"],
        mlp=full["encoder_ffn_dim"],
        layers=full["encoder_layers"],
        heads=full["encoder_attention_heads"],
    )


def shapes(net: BertConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    return jax.eval_shape(lambda: BertText(net).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))["params"]
