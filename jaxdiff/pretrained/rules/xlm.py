"""diffusers' MultilingualCLIP, Kandinsky 2.1's text encoder: names, and config.json."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.text_xlm import PAD, XlmConfig, XlmText
from jaxdiff.pretrained.rules import Rule, Rules, clip, under
from jaxdiff.pretrained.rules.fields import Field, divides, number, one_of, settle, whole
from jaxdiff.typing import Params

_BLOCK = (
    *(Rule(f"attention.self.{theirs}", f"attn/{theirs[0]}", "dense") for theirs in ("query", "key", "value")),
    Rule("attention.output.dense", "attn/out", "dense"),
    Rule("attention.output.LayerNorm", "norm1", "norm"),
    Rule("intermediate.dense", "fc1", "dense"),
    Rule("output.dense", "fc2", "dense"),
    Rule("output.LayerNorm", "norm2", "norm"),
)
RULES: Rules = (
    Rule("transformer.embeddings.word_embeddings", "token_embed", "embed"),
    Rule("transformer.embeddings.position_embeddings.weight", "position_embed", "same"),
    Rule("transformer.embeddings.token_type_embeddings.weight", "type_embed", "same"),
    Rule("transformer.embeddings.LayerNorm", "norm_in", "norm"),
    *under("transformer.encoder.layer.{}", "block_{}", _BLOCK),
    Rule("transformer.pooler.dense", "pooler", "dense"),
    Rule("LinearTransformation", "projection", "dense"),
    Rule("transformer.embeddings.position_ids", "", "skip"),
)
_FIELDS: dict[str, Field] = {
    "vocab_size": whole(30522),
    "hidden_size": whole(768),
    "transformerDimensions": whole(1024),
    "numDims": whole(768),
    "intermediate_size": whole(3072),
    "num_hidden_layers": whole(12, most=1000),
    "num_attention_heads": whole(12),
    "max_position_embeddings": whole(512, 4),
    "type_vocab_size": whole(2),
    "layer_norm_eps": number(1e-12, 0.0),
    "hidden_act": one_of("gelu"),
    "pad_token_id": one_of(PAD),
    "position_embedding_type": one_of("absolute"),
    "is_decoder": one_of(False),
    "add_cross_attention": one_of(False),
}
HARMLESS = {
    **{field: why for field, why in clip.HARMLESS.items() if field != "pad_token_id"},
    **dict.fromkeys(("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout"), "of training"),
    "output_past": "of writing text",
    "eos_token_id": "the tokenizer says it",
    **dict.fromkeys(("directionOfText", "freezeTransformer", "modelBase"), "of training"),
    **dict.fromkeys(("transformerDimSize", "imageDimSize"), "transformerDimensions and numDims say them"),
}
"""Fields that change nothing of the encoder, and why."""


def config(json: Mapping[str, Any]) -> XlmConfig:
    """Returns the numbers of a MultilingualCLIP.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    name = "MultilingualCLIP"
    full = settle(name, json, _FIELDS, HARMLESS)
    if full["transformerDimensions"] != full["hidden_size"]:
        raise ValueError(
            f"{name}: transformerDimensions={full['transformerDimensions']} with hidden_size={full['hidden_size']} is "
            "not supported: expected the same"
        )
    divides(name, "num_attention_heads", full["num_attention_heads"], "hidden_size", [full["hidden_size"]])
    return XlmConfig(
        vocabulary=full["vocab_size"],
        length=min(77, full["max_position_embeddings"] - PAD - 1),
        positions=full["max_position_embeddings"],
        types=full["type_vocab_size"],
        width=full["hidden_size"],
        mlp=full["intermediate_size"],
        layers=full["num_hidden_layers"],
        heads=full["num_attention_heads"],
        projection=full["numDims"],
        eps=float(full["layer_norm_eps"]),
    )


def shapes(net: XlmConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    return jax.eval_shape(lambda: XlmText(net).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))["params"]
