"""One network in one file, without a config.json: an autoencoder or a ControlNet, in its authors' names or diffusers'.

An autoencoder's numbers are those of the model that it is for, and so is what its latents are scaled by, which no file
says. A ControlNet's follow from its tensors' shapes; only the number of heads does not: 8 beside a text encoder of 768
channels (Stable Diffusion 1), elsewhere 64 channels a head.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.pretrained import files
from jaxdiff.pretrained.components import Json, family
from jaxdiff.pretrained.presets import PRESETS, SHARED
from jaxdiff.pretrained.read import Component, placed
from jaxdiff.pretrained.rules import Rules, Stored, TensorError, autoencoder, compvis, from_tensors
from jaxdiff.typing import Params

_VAE = re.compile(rf"({re.escape(SHARED['vae'])}\.|vae\.)?((?:encoder|decoder|quant_conv|post_quant_conv)\..*)")
_CONTROL = "control_model."
_HINT = "controlnet_cond_embedding"


def read(
    path: Path | str,
    name: str,
    *,
    own: Callable[[], Json],
    dtype: Any = None,
    shardings: Callable[[Params], Any] | None = None,
) -> Component:
    """Reads one network from one file.

    Args:
      path: the file.
      name: name of the component: `vae`, or begins with `controlnet`.
      own: gives the config.json of the autoencoder that this one takes the place of.
      dtype: dtype of the parameters; None keeps what the file has.
      shardings: tree of shapes -> tree of shardings.

    Raises:
      ValueError: for another component, or a file of something else.
    """
    tensors = files.read_tensors(path)
    if name == "vae":
        kind, json, tensors, table = _autoencoder(path, tensors, own)
    elif name.startswith("controlnet"):
        kind, json, tensors, table = _controlnet(path, tensors)
    else:
        raise ValueError(f"{path} is one file: {name} has to be a directory with its config.json")
    one = family(kind)
    net = one.config(json)
    shapes = one.shapes(net, json)
    try:
        params = from_tensors(tensors, shapes, table or one.rules(net, json), placed(shapes, dtype, shardings))
    except TensorError as error:
        raise TensorError(f"{path} ({kind}): {error}") from None
    return Component(kind, {"_class_name": kind, **json}, net, params)


_Found = tuple[str, Json, dict[str, Stored], Rules | None]
"""The class, config.json, tensors, and the table of names where it is not the class's own."""


def _autoencoder(path: Path | str, tensors: Mapping[str, Stored], own: Callable[[], Json]) -> _Found:
    named = {match[2]: x for name, x in tensors.items() if (match := _VAE.fullmatch(name))}
    if "encoder.layers.0.weight" in named:
        return "AutoencoderTiny", {}, named, None
    if "decoder.conv_in.weight" not in named:
        raise ValueError(f"{path} holds no autoencoder: it has no tensor decoder.conv_in.weight")
    json = own()
    if (kind := json.get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
        raise ValueError(f"{path} holds an AutoencoderKL and the model has a {kind}: give a directory with config.json")
    theirs = any(name.startswith("decoder.up_blocks.") for name in named)
    return kind, json, named, autoencoder.RULES if theirs else compvis.autoencoder_rules(autoencoder.config(json))


def _controlnet(path: Path | str, tensors: Mapping[str, Stored]) -> _Found:
    kind = "ControlNetModel"
    if f"{_HINT}.conv_in.weight" in tensors:
        return kind, _numbers(path, tensors), dict(tensors), None
    if any(name.startswith(_CONTROL) for name in tensors):  # what is beside it in the file is a whole model's
        tensors = {k.removeprefix(_CONTROL): x for k, x in tensors.items() if k.startswith(_CONTROL)}
    if "input_hint_block.0.weight" not in tensors:
        raise ValueError(f"{path} holds no ControlNet: it has neither {_HINT} nor {_CONTROL}input_hint_block")
    width = next((x.shape[1] for name, x in tensors.items() if name.endswith("attn2.to_k.weight")), None)
    nets = {PRESETS[name]["unet"]["cross_attention_dim"]: PRESETS[name]["unet"] for name in ("sd1", "sd2")}
    if width not in nets:
        raise ValueError(
            f"{path}: a ControlNet for text states of {width} channels: expected {' or '.join(map(str, nets))}"
        )
    hint = [
        tensors[f"input_hint_block.{n}.weight"].shape
        for n in (0, 4, 8, 12)
        if f"input_hint_block.{n}.weight" in tensors
    ]
    json = {k: v for k, v in nets[width].items() if k not in ("sample_size", "up_block_types")}
    json |= {"conditioning_channels": hint[0][1], "conditioning_embedding_out_channels": [shape[0] for shape in hint]}
    return kind, json, dict(tensors), compvis.controlnet_rules(family(kind).config(json), json)


def _numbers(path: Path | str, tensors: Mapping[str, Stored]) -> dict[str, Any]:
    """Returns config.json of a ControlNet by the shapes of tensors with diffusers' names."""
    found = [
        re.match(r"(down_blocks\.\d+|mid_block)\.(?:attentions\.0\.transformer_blocks\.(\d+))?", k) for k in tensors
    ]
    depth: dict[str, int] = {}
    for match in found:
        if match:
            depth[match[1]] = max(depth.get(match[1], 0), int(match[2] or -1) + 1)
    levels = [f"down_blocks.{i}" for i in range(len(depth) - 1)]
    try:
        channels = [tensors[f"{level}.resnets.0.conv1.weight"].shape[0] for level in levels]
        middle = tensors["mid_block.attentions.0.proj_in.weight"]
        context = next(x.shape[1] for name, x in tensors.items() if name.endswith("attn2.to_k.weight"))
        hint = [tensors[f"{_HINT}.conv_in.weight"].shape]
    except (KeyError, IndexError, StopIteration) as error:
        raise ValueError(f"{path} holds no whole ControlNet: {error} is missing or of another shape") from None
    blocks = [n for n in range(1, 16, 2) if f"{_HINT}.blocks.{n}.weight" in tensors]
    hint += [tensors[f"{_HINT}.blocks.{n}.weight"].shape for n in blocks]
    crossed = [any(name.startswith(f"{level}.attentions.") for name in tensors) for level in levels]
    json = {
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if c else "DownBlock2D" for c in crossed],
        "layers_per_block": sum(f"down_blocks.0.resnets.{n}.conv1.weight" in tensors for n in range(16)),
        "cross_attention_dim": context,
        "attention_head_dim": 8 if context == 768 else [max(c // 64, 1) for c in channels],
        "transformer_layers_per_block": [*(depth[level] for level in levels[:-1]), depth["mid_block"]],
        "use_linear_projection": len(middle.shape) == 2,
        "conditioning_channels": hint[0][1],
        "conditioning_embedding_out_channels": [shape[0] for shape in hint],
    }
    if sizes := tensors.get("add_embedding.linear_1.weight"):
        more = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        json |= {**more, "projection_class_embeddings_input_dim": sizes.shape[1]}
    return json
