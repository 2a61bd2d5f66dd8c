"""DALL-E mini and mega, and the VQGAN whose codes they say: names in `pretrained.flax_file`, and config.json."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.autoencoder_vq import AutoencoderVQ, VQConfig
from jaxdiff.models.bart import Bart, BartConfig
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.fields import divides, each, flag, one_of, optional, settle, whole
from jaxdiff.typing import Params

BART, VQGAN = "DalleBart", "VQGAN"
_QKV = tuple(Rule(f"{name}_proj", name, "dense") for name in ("q", "k", "v", "out"))


def _attention(norm: int, attn: int, ours: str) -> Rules:
    return (
        *under(f"FlaxBartAttention_{attn}", ours, _QKV),
        Rule(f"LayerNorm_{norm}", f"{ours}/norm_in", "norm"),
        Rule(f"LayerNorm_{norm + 1}", f"{ours}/norm_out", "norm"),
    )


_GATED = (
    Rule("LayerNorm_0", "norm_in", "norm"),
    Rule("Dense_0", "gate", "dense"),
    Rule("Dense_1", "value", "dense"),
    Rule("LayerNorm_1", "norm_mid", "norm"),
    Rule("Dense_2", "out", "dense"),
)


def _half(name: str, layer: str, *attentions: Rules) -> Rules:
    blocks = (*(rule for rules in attentions for rule in rules), *under("GLU_0", "ff", _GATED))
    return (
        Rule(f"model.{name}.embed_tokens", f"{name}/embed", "embed"),
        Rule(f"model.{name}.embed_positions", f"{name}/place", "embed"),
        Rule(f"model.{name}.layernorm_embedding", f"{name}/norm_in", "norm"),
        Rule(f"model.{name}.final_ln", f"{name}/norm_out", "norm"),
        *under(f"model.{name}.layers.{layer}_{{}}", f"{name}/layer_{{}}", blocks),
    )


RULES: Rules = (
    *_half("encoder", "FlaxBartEncoderLayer", _attention(0, 0, "attn")),
    *_half("decoder", "FlaxBartDecoderLayer", _attention(0, 0, "attn"), _attention(2, 1, "cross")),
    Rule("lm_head", "says", "dense"),
)
_MANY = whole(12, most=1000)
_FIELDS = {
    "encoder_vocab_size": whole(50264),
    "image_vocab_size": whole(16384),
    "image_length": whole(256),
    "max_text_length": whole(64),
    "d_model": whole(1024),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), _MANY),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), whole(16)),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), whole(4096)),
    "decoder_start_token_id": optional(whole(None, 0)),
    "normalize_text": flag(False),
    "use_bias": flag(False),
    "use_scan": optional(flag(True)),
    "force_ln_scale": flag(False),
    "activation_function": one_of("gelu"),
    "scale_embedding": one_of(False),
    "tie_word_embeddings": one_of(False),
    "is_encoder_decoder": one_of(True),
    "ln_type": one_of("layernorm"),
    "ln_positions": one_of("normformer"),
    "use_head_scale": one_of(False),
    "use_cosine_attention": one_of(False),
    "use_absolute_position_embeddings": one_of(True),
    "use_swin_position_embeddings": one_of(False),
    "use_deepnet_scaling": one_of(False),
    "use_glu": one_of(True),
    "use_alibi": one_of(False),
    "sinkhorn_iters": one_of(1),
    "use_final_ln_encoder": one_of(True),
    "use_final_ln_decoder": one_of(True),
}
HARMLESS = {
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), "of training"),
    **dict.fromkeys(("encoder_layerdrop", "decoder_layerdrop", "gradient_checkpointing"), "of training"),
    **dict.fromkeys(("init_std", "use_subln_init"), "of the first weights"),
    "tau_init": "of cosine attention, which is refused",
    "use_cache": "tokens are always drawn with one",
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), "of picture tokens, which never end early"),
    **dict.fromkeys(("min_length", "max_length"), "pictures have image_length tokens"),
    **dict.fromkeys(("do_sample", "forced_eos_token_id"), "tokens are always drawn"),
}


def config(json: Mapping[str, Any]) -> BartConfig:
    """Returns the numbers of a DALL-E mini.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle(BART, json, _FIELDS, HARMLESS)
    values, start = full["image_vocab_size"], full["decoder_start_token_id"]
    for half in ("encoder", "decoder"):
        divides(BART, f"{half}_attention_heads", full[f"{half}_attention_heads"], "d_model", [full["d_model"]])
    if start is not None and start > values:
        raise ValueError(f"{BART}: decoder_start_token_id={start} is above image_vocab_size={values}")
    return BartConfig(
        vocabulary=full["encoder_vocab_size"],
        length=full["max_text_length"],
        values=values,
        codes=values,
        places=full["image_length"],
        start=values if start is None else start,
        width=full["d_model"],
        encoder_layers=full["encoder_layers"],
        decoder_layers=full["decoder_layers"],
        encoder_heads=full["encoder_attention_heads"],
        decoder_heads=full["decoder_attention_heads"],
        encoder_hidden=full["encoder_ffn_dim"],
        decoder_hidden=full["decoder_ffn_dim"],
        bias=full["use_bias"],
        scales=full["force_ln_scale"],
    )


def shapes(net: BartConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    ids, codes = jnp.zeros((1, net.length), jnp.int32), jnp.zeros((1, net.places), jnp.int32)
    return jax.eval_shape(lambda: Bart(net).init(jax.random.key(0), ids, ids == 0, codes))["params"]


_VQ_FIELDS = {
    "ch": whole(128),
    "out_ch": one_of(3),
    "in_channels": one_of(3),
    "num_res_blocks": whole(2, most=100),
    "resolution": whole(256),
    "z_channels": whole(256),
    "ch_mult": each(whole(1), (1, 1, 2, 2, 4)),
    "attn_resolutions": each(whole(1), (16,)),
    "n_embed": whole(1024, 2),
    "embed_dim": whole(256),
    "double_z": one_of(False),
    "resamp_with_conv": one_of(True),
    "use_conv_shortcut": one_of(False),
    "give_pre_end": one_of(False),
}
VQ_HARMLESS = {"dropout": "of training", "num_resolutions": "as many as ch_mult has", "act_fn": "it is silu"}
_RESNET = (
    *(Rule(name, name, "norm") for name in ("norm1", "norm2")),
    *(Rule(name, name, "conv") for name in ("conv1", "conv2")),
    Rule("nin_shortcut", "shortcut", "conv"),
)
_ATTENTION = (
    Rule("norm", "norm", "norm"),
    *(
        Rule(theirs, f"attn/{ours}", "conv")
        for theirs, ours in (("q", "q"), ("k", "k"), ("v", "v"), ("proj_out", "out"))
    ),
)


def vq_config(json: Mapping[str, Any]) -> VQConfig:
    """Returns the numbers of a VQGAN.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle(VQGAN, json, _VQ_FIELDS, VQ_HARMLESS)
    channels = tuple(full["ch"] * mult for mult in full["ch_mult"])
    net = VQConfig(
        channels=channels,
        layers=full["num_res_blocks"],
        latent_channels=full["z_channels"],
        attention=tuple(i for i in range(len(channels)) if full["resolution"] // 2**i in full["attn_resolutions"]),
        codes=full["n_embed"],
        width=full["embed_dim"],
        upcast=False,
    )
    net.check()
    if full["resolution"] % net.unit:
        raise ValueError(
            f"{VQGAN}: resolution={full['resolution']} is not a multiple of {net.unit}, as ch_mult asks for"
        )
    return net


def vq_shapes(net: VQConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    x = jnp.zeros((1, net.unit, net.unit, 3))
    return jax.eval_shape(lambda: AutoencoderVQ(net).init(jax.random.key(0), x))["params"]


def vq_rules(net: VQConfig, json: Mapping[str, Any]) -> Rules:
    """Returns the table of a VQGAN; its decoder's levels are counted from the picture inwards."""
    last = len(net.channels) - 1
    level = lambda theirs, ours: (
        *under(f"{theirs}.block_{{}}", f"{ours}/resnet_{{}}", _RESNET),
        *under(f"{theirs}.attn_{{}}", f"{ours}/attn_{{}}", _ATTENTION),
    )
    middle = (
        *under("block_1", "resnet_0", _RESNET),
        *under("attn_1", "attn_0", _ATTENTION),
        *under("block_2", "resnet_1", _RESNET),
    )
    ends = (
        Rule("conv_in", "conv_in", "conv"),
        Rule("norm_out", "norm_out", "norm"),
        Rule("conv_out", "conv_out", "conv"),
    )
    return (
        *(rule for half in ("encoder", "decoder") for rule in under(half, half, ends)),
        *(rule for half in ("encoder", "decoder") for rule in under(f"{half}.mid", f"{half}/mid", middle)),
        *level("encoder.down_{}", "encoder/down_{}"),
        Rule("encoder.down_{}.downsample.conv", "encoder/down_{}/downsample/conv", "conv"),
        *(rule for i in range(last + 1) for rule in level(f"decoder.up_{last - i}", f"decoder/up_{i}")),
        *(Rule(f"decoder.up_{last - i}.upsample.conv", f"decoder/up_{i}/upsample", "conv") for i in range(last)),
        Rule("quantize.embedding.weight", "codebook", "same"),
        Rule("quant_conv", "quant_conv", "conv"),
        Rule("post_quant_conv", "post_quant_conv", "conv"),
    )
