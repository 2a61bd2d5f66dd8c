"""transformers' T5EncoderModel: names, and config.json; the decoder of a whole T5 is left out."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.text_t5 import T5Config, T5Encoder
from jaxdiff.pretrained.rules import Rule, Rules, clip, under
from jaxdiff.pretrained.rules.fields import Field, number, one_of, settle, whole
from jaxdiff.typing import Params

_ATTENTION = (
    *(Rule(name, name, "dense") for name in ("q", "k", "v")),
    Rule("o", "out", "dense"),
)
RULES: Rules = (
    Rule("shared", "token_embed", "embed"),
    Rule("encoder.embed_tokens", "token_embed", "embed"),
    Rule("encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "distance_embed", "embed"),
    Rule("encoder.block.{}.layer.0.layer_norm", "block_{}/norm1", "norm"),
    *under("encoder.block.{}.layer.0.SelfAttention", "block_{}/attn", _ATTENTION),
    Rule("encoder.block.{}.layer.1.layer_norm", "block_{}/norm2", "norm"),
    Rule("encoder.block.{}.layer.1.DenseReluDense.wi", "block_{}/mlp/fc1", "dense"),
    Rule("encoder.block.{}.layer.1.DenseReluDense.wi_1", "block_{}/mlp/fc1", "dense"),
    Rule("encoder.block.{}.layer.1.DenseReluDense.wi_0", "block_{}/mlp/gate", "dense"),
    Rule("encoder.block.{}.layer.1.DenseReluDense.wo", "block_{}/mlp/fc2", "dense"),
    Rule("encoder.final_layer_norm", "norm_out", "norm"),
    Rule("encoder.embed_tokens.weight", "", "skip"),  # the same numbers as shared
    Rule("decoder.*", "", "skip"),
    Rule("lm_head.*", "", "skip"),
)


def rules(net: T5Config, json: Mapping[str, Any]) -> Rules:
    """The table of an encoder: a gated one has no wi."""
    return tuple(rule for rule in RULES if not (net.gated and rule.theirs.endswith(".wi")))


_FIELDS: dict[str, Field] = {
    "vocab_size": whole(32128),
    "d_model": whole(512),
    "d_kv": whole(64),
    "d_ff": whole(2048),
    "num_layers": whole(6, most=1000),
    "num_heads": whole(8),
    "relative_attention_num_buckets": whole(32, 4),
    "relative_attention_max_distance": whole(128, 2),
    "layer_norm_epsilon": number(1e-6, 0.0),
    "feed_forward_proj": one_of("relu", "gated-gelu"),
    "pad_token_id": one_of(0),
    "eos_token_id": one_of(1),
    "is_decoder": one_of(False),
}
HARMLESS = {
    **{field: why for field, why in clip.HARMLESS.items() if field not in ("pad_token_id",)},
    "dropout_rate": "of training",
    "classifier_dropout": "of training",
    "n_positions": "of how texts were cut in training: the model takes any number of tokens",
    "output_past": "of the decoder",
    "num_decoder_layers": "of the decoder",
    "scale_decoder_outputs": "of the decoder",
    "is_encoder_decoder": "only the encoder is read",
    "dense_act_fn": "feed_forward_proj says it",
    "is_gated_act": "feed_forward_proj says it",
}
"""Fields that change nothing of the encoder, and why."""


def config(json: Mapping[str, Any]) -> T5Config:
    """The numbers of a T5EncoderModel.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle("T5EncoderModel", json, _FIELDS, HARMLESS)
    return T5Config(
        vocabulary=full["vocab_size"],
        width=full["d_model"],
        head_dim=full["d_kv"],
        mlp=full["d_ff"],
        gated=full["feed_forward_proj"] == "gated-gelu",
        layers=full["num_layers"],
        heads=full["num_heads"],
        buckets=full["relative_attention_num_buckets"],
        distance=full["relative_attention_max_distance"],
        eps=float(full["layer_norm_epsilon"]),
    )


def shapes(net: T5Config, json: Mapping[str, Any]) -> Params:
    """The parameters, as shapes."""
    return jax.eval_shape(lambda: T5Encoder(net).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))["params"]
