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
from jaxdiff.pretrained.rules.fields import Field, divides, number, one_of, optional, settle, whole
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
_SHARED = {
    "hidden_act": one_of("quick_gelu", "gelu"),
    "projection_dim": whole(512),
    "num_hidden_layers": whole(12, most=200),
    "layer_norm_eps": number(1e-5, 0.0),
}
_TEXT_FIELDS = {
    **_SHARED,
    "vocab_size": whole(49408),
    "hidden_size": whole(512),
    "intermediate_size": whole(2048),
    "num_attention_heads": whole(8),
    "max_position_embeddings": whole(77, least=2, most=10**4),
    "eos_token_id": whole(49407, least=0),
}
_IMAGE_FIELDS = {
    **_SHARED,
    "hidden_size": whole(768),
    "intermediate_size": whole(3072),
    "num_attention_heads": whole(12),
    "num_channels": one_of(3),
    "image_size": whole(224, most=10**4),
    "patch_size": whole(32, most=10**4),
}
HARMLESS = {
    **dict.fromkeys(("attention_dropout", "dropout"), "off when a model is used"),
    **dict.fromkeys(("initializer_range", "initializer_factor", "logit_scale_init_value"), "the weights are read"),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "sep_token_id"), "the tokenizer says them"),
    **dict.fromkeys(("output_hidden_states", "output_attentions", "return_dict", "use_cache"), "of calls from Python"),
    **dict.fromkeys(("id2label", "label2id", "problem_type", "finetuning_task", "tokenizer_class"), "of other tasks"),
    **dict.fromkeys(("attn_implementation", "torchscript", "tf_legacy_loss", "use_bfloat16"), "of how it is computed"),
    **dict.fromkeys(("tie_word_embeddings", "tie_encoder_decoder"), "of models that write text"),
    **dict.fromkeys(
        (
            *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "temperature"),
            *("diversity_penalty", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "prefix"),
            *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"),
            *("output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id"),
            *("remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
            *("decoder_start_token_id", "task_specific_params"),
        ),
        "of writing text",
    ),
}
PLAIN_TEXT_HARMLESS = {**HARMLESS, "projection_dim": "of the class with a projection"}
"""Fields that change nothing of these encoders, and why; most are in every config of transformers before version 5."""
SAFETY_HARMLESS = {
    **HARMLESS,
    **dict.fromkeys(("text_config", "text_config_dict"), "the checker reads no text"),
}
_SAFETY_FIELDS = {
    "projection_dim": whole(512),
    "vision_config": Field({}, "an object", lambda x: isinstance(x, Mapping)),
    "vision_config_dict": optional(Field({}, "an object", lambda x: isinstance(x, Mapping))),
}


def text_config(json: Mapping[str, Any], *, projection: bool) -> ClipTextConfig:
    """Returns the numbers of a CLIPTextModel, or with `projection` of a CLIPTextModelWithProjection.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    name = "CLIPTextModelWithProjection" if projection else "CLIPTextModel"
    full = settle(name, json, _TEXT_FIELDS, HARMLESS)
    divides(name, "num_attention_heads", full["num_attention_heads"], "hidden_size", [full["hidden_size"]])
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
        # published configs say 2, which is not an end token: transformers then takes the largest id, and so do we
        end=None if end == 2 else end,
        eps=float(full["layer_norm_eps"]),
    )


def image_config(json: Mapping[str, Any]) -> ClipImageConfig:
    """Returns the numbers of a CLIPVisionModelWithProjection.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    name = "CLIPVisionModelWithProjection"
    full = settle(name, json, _IMAGE_FIELDS, HARMLESS)
    divides(name, "num_attention_heads", full["num_attention_heads"], "hidden_size", [full["hidden_size"]])
    divides(name, "patch_size", full["patch_size"], "image_size", [full["image_size"]])
    return ClipImageConfig(
        size=full["image_size"],
        patch=full["patch_size"],
        width=full["hidden_size"],
        mlp=full["intermediate_size"],
        layers=full["num_hidden_layers"],
        heads=full["num_attention_heads"],
        activation=full["hidden_act"],
        projection=full["projection_dim"],
        eps=float(full["layer_norm_eps"]),
    )


def text_json(net: ClipTextConfig) -> dict[str, Any]:
    """Returns config.json of a CLIPTextModelWithProjection with these numbers: `text_config` reads them again."""
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "vocab_size": net.vocabulary,
        "max_position_embeddings": net.length,
        "hidden_size": net.width,
        "intermediate_size": net.mlp,
        "num_hidden_layers": net.layers,
        "num_attention_heads": net.heads,
        "hidden_act": net.activation,
        "projection_dim": net.projection,
        "eos_token_id": 2 if net.end is None else net.end,
        "layer_norm_eps": net.eps,
    }


def image_json(net: ClipImageConfig) -> dict[str, Any]:
    """Returns config.json of a CLIPVisionModelWithProjection with these numbers: `image_config` reads them again."""
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "image_size": net.size,
        "patch_size": net.patch,
        "hidden_size": net.width,
        "intermediate_size": net.mlp,
        "num_hidden_layers": net.layers,
        "num_attention_heads": net.heads,
        "hidden_act": net.activation,
        "projection_dim": net.projection,
        "layer_norm_eps": net.eps,
    }


def safety_config(json: Mapping[str, Any]) -> ClipImageConfig:
    """Returns the numbers of a StableDiffusionSafetyChecker: its image encoder's."""
    full = settle("StableDiffusionSafetyChecker", json, _SAFETY_FIELDS, SAFETY_HARMLESS)
    # the reference lets the second count
    own = {**full["vision_config"], **(full["vision_config_dict"] or {})}
    return image_config({**own, "projection_dim": full["projection_dim"]})


def image_shapes(net: ClipImageConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    pixels = jnp.zeros((1, net.size, net.size, 3))
    return jax.eval_shape(lambda: ClipImage(net).init(jax.random.key(0), pixels))["params"]


def safety_shapes(net: ClipImageConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    pixels = jnp.zeros((1, net.size, net.size, 3))
    return jax.eval_shape(lambda: SafetyChecker(net).init(jax.random.key(0), pixels))["params"]


def text_shapes(net: ClipTextConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    tokens = jnp.zeros((1, net.length), jnp.int32)
    return jax.eval_shape(lambda: ClipText(net).init(jax.random.key(0), tokens))["params"]
