"""Names in single-file checkpoints: CompVis' U-Net and autoencoder, OpenCLIP's text encoder.

Their U-Net numbers blocks through: block 0 is the first convolution, and every change of resolution ends a level, as a
block of its own on the way down and as the last part of a block on the way up. So these tables depend on the numbers
of the model.
"""

from collections.abc import Mapping
from typing import Any

from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.models.controlnet import ControlNetConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.unet import transformer

_RESNET = (
    Rule("in_layers.0", "norm1", "norm"),
    Rule("in_layers.2", "conv1", "conv"),
    Rule("emb_layers.1", "time", "dense"),
    Rule("out_layers.0", "norm2", "norm"),
    Rule("out_layers.3", "conv2", "conv"),
    Rule("skip_connection", "shortcut", "conv"),
)
_MLP = (Rule("0", "fc1", "dense"), Rule("2", "fc2", "dense"))


def unet_rules(net: UNetConfig, json: Mapping[str, Any]) -> Rules:
    """Returns the table of a U-Net, without the prefix `model.diffusion_model.`."""
    return numbered(net, transformer("dense" if json.get("use_linear_projection") else "conv"))


def numbered(net: UNetConfig, attention: Rules) -> Rules:
    """Returns the table of a U-Net whose blocks are numbered through, with these rules of an attention."""
    levels, each = len(net.channels), net.layers + 1
    rules: list[Rule] = [
        Rule("input_blocks.0.0", "conv_in", "conv"),
        *under("time_embed", "time_mlp", _MLP),
        *under("label_emb.0", "pooled_mlp", _MLP),
        Rule("label_emb", "label_embed", "embed"),
        *under("middle_block.0", "mid/resnet_0", _RESNET),
        *under("middle_block.1", "mid/attn_0", attention),
        *under("middle_block.2", "mid/resnet_1", _RESNET),
        Rule("out.0", "norm_out", "norm"),
        Rule("out.2", "conv_out", "conv"),
    ]
    for i in range(levels):
        for j in range(net.layers):
            rules += under(f"input_blocks.{1 + each * i + j}.0", f"down_{i}/resnet_{j}", _RESNET)
            rules += under(f"input_blocks.{1 + each * i + j}.1", f"down_{i}/attn_{j}", attention)
        rules.append(Rule(f"input_blocks.{each * (i + 1)}.0.op", f"down_{i}/downsample/conv", "conv"))
        rules += under(f"input_blocks.{each * (i + 1)}.0", f"down_{i}/downsample", _RESNET)
        for j in range(each):
            rules += under(f"output_blocks.{each * i + j}.0", f"up_{i}/resnet_{j}", _RESNET)
            rules += under(f"output_blocks.{each * i + j}.1", f"up_{i}/attn_{j}", attention)
        part = 1 if net.attention[levels - 1 - i] == "none" else 2
        rules.append(Rule(f"output_blocks.{each * (i + 1) - 1}.{part}.conv", f"up_{i}/upsample", "conv"))
        rules += under(f"output_blocks.{each * (i + 1) - 1}.{part}", f"up_{i}/upsample", _RESNET)
    return tuple(rules)


def controlnet_rules(net: ControlNetConfig, json: Mapping[str, Any]) -> Rules:
    """Returns the table of a ControlNet, without the prefix `control_model.`: the U-Net's way down, and its own."""
    inner = 2 * len(net.hint_channels) - 2
    return (
        *(rule for rule in unet_rules(net.net, json) if not rule.theirs.startswith("out")),
        Rule("input_hint_block.0", "hint/conv_in", "conv"),
        *(Rule(f"input_hint_block.{2 * n + 2}", f"hint/conv_{n}", "conv") for n in range(inner)),
        Rule(f"input_hint_block.{2 * inner + 2}", "hint/conv_out", "conv"),
        Rule("zero_convs.{}.0", "skip_{}", "conv"),
        Rule("middle_block_out.0", "skip_mid", "conv"),
    )


_BLOCK = (
    Rule("norm1", "norm1", "norm"),
    Rule("conv1", "conv1", "conv"),
    Rule("norm2", "norm2", "norm"),
    Rule("conv2", "conv2", "conv"),
    Rule("nin_shortcut", "shortcut", "conv"),
)
_HALF = (
    Rule("conv_in", "conv_in", "conv"),
    *under("mid.block_1", "mid/resnet_0", _BLOCK),
    Rule("mid.attn_1.norm", "mid/attn_0/norm", "norm"),
    Rule("mid.attn_1.q", "mid/attn_0/attn/q", "conv"),
    Rule("mid.attn_1.k", "mid/attn_0/attn/k", "conv"),
    Rule("mid.attn_1.v", "mid/attn_0/attn/v", "conv"),
    Rule("mid.attn_1.proj_out", "mid/attn_0/attn/out", "conv"),
    *under("mid.block_2", "mid/resnet_1", _BLOCK),
    Rule("norm_out", "norm_out", "norm"),
    Rule("conv_out", "conv_out", "conv"),
)


def autoencoder_rules(net: AutoencoderConfig) -> Rules:
    """Returns the table of a KL autoencoder, without the prefix `first_stage_model.`.

    Its decoder counts levels backwards.
    """
    last = len(net.channels) - 1
    decoder: list[Rule] = []
    for i in range(last + 1):
        decoder += under(f"decoder.up.{last - i}.block.{{}}", f"decoder/up_{i}/resnet_{{}}", _BLOCK)
        decoder.append(Rule(f"decoder.up.{last - i}.upsample.conv", f"decoder/up_{i}/upsample", "conv"))
    return (
        *under("encoder", "encoder", _HALF),
        *under("encoder.down.{}.block.{}", "encoder/down_{}/resnet_{}", _BLOCK),
        Rule("encoder.down.{}.downsample.conv", "encoder/down_{}/downsample/conv", "conv"),
        *under("decoder", "decoder", _HALF),
        *decoder,
        Rule("quant_conv", "quant_conv", "conv"),
        Rule("post_quant_conv", "post_quant_conv", "conv"),
        Rule("loss.*", "", "skip"),
    )


_OPENCLIP_BLOCK = (
    Rule("ln_1", "norm1", "norm"),
    Rule("attn.in_proj", "attn", "heads"),
    Rule("attn.out_proj", "attn/out", "dense"),
    Rule("ln_2", "norm2", "norm"),
    Rule("mlp.c_fc", "fc1", "dense"),
    Rule("mlp.c_proj", "fc2", "dense"),
)


def openclip_rules(layers: int) -> Rules:
    """Returns the table of OpenCLIP's text encoder of which `layers` blocks are used; one more may be in the file.

    Its projection is a plain matrix, [in, out] as ours.
    """
    return (
        Rule("token_embedding", "token_embed", "embed"),
        Rule("positional_embedding", "position_embed", "same"),
        *under("transformer.resblocks.{}", "block_{}", _OPENCLIP_BLOCK),
        Rule("ln_final", "norm_out", "norm"),
        Rule("text_projection", "projection/kernel", "same"),
        Rule("text_projection", "", "skip"),
        Rule("logit_scale", "", "skip"),
        Rule("attn_mask", "", "skip"),
        Rule(f"transformer.resblocks.{layers}.*", "", "skip"),
    )
