"""Checkpoints in one file, as Stable Diffusion's authors publish them: U-Net, autoencoder and text encoders together.

Such a file says nothing about its numbers, its tokenizer or what its network predicts. The first follow from which
tensors it has: the models it may be are listed in `PRESETS`.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdiff.data import tokenizer_clip
from jaxdiff.pretrained import files
from jaxdiff.pretrained.components import Json, family
from jaxdiff.pretrained.read import Bundle, Component, Shardings, placed
from jaxdiff.pretrained.rules import Rules, Stored, TensorError, clip, compvis, from_tensors, to_tensors, under

_CROSS, _PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
_UP_CROSS, _UP_PLAIN = "CrossAttnUpBlock2D", "UpBlock2D"


def _unet(side: int, channels: tuple[int, ...], crossed: str, context: int, heads: Any, **more: Any) -> Json:
    """A U-Net's config.json; `crossed` has an x for each level with cross-attention."""
    return {
        "sample_size": side,
        "block_out_channels": channels,
        "down_block_types": tuple(_CROSS if c == "x" else _PLAIN for c in crossed),
        "up_block_types": tuple(_UP_CROSS if c == "x" else _UP_PLAIN for c in reversed(crossed)),
        "cross_attention_dim": context,
        "attention_head_dim": heads,
        **more,
    }


def _vae(levels: int, scale: float) -> Json:
    return {
        "block_out_channels": (128, 256, 512, 512)[:levels],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": 2,
        "scaling_factor": scale,
    }


def _text(width: int, layers: int, act: str, projection: int = 0) -> Json:
    heads = width // 64
    numbers = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    return {**numbers, "num_attention_heads": heads, "hidden_act": act, "projection_dim": projection or width}


_L, _H, _BIG_G = _text(768, 12, "quick_gelu"), _text(1024, 23, "gelu"), _text(1280, 32, "gelu", 1280)
_SIZES = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
_WIDE = {"use_linear_projection": True}

PRESETS: dict[str, dict[str, Json]] = {
    "sd1": {
        "unet": _unet(64, (320, 640, 1280, 1280), "xxx-", 768, 8),
        "vae": _vae(4, 0.18215),
        "text_encoder": _L,
    },
    "sd2": {
        "unet": _unet(64, (320, 640, 1280, 1280), "xxx-", 1024, (5, 10, 20, 20), **_WIDE),
        "vae": _vae(4, 0.18215),
        "text_encoder": _H,
    },
    "upscale": {
        "unet": _unet(
            128,
            (256, 512, 512, 1024),
            "-xxx",
            1024,
            8,
            only_cross_attention=(True, True, True, False),
            num_class_embeds=1000,
            **_WIDE,
        ),
        "vae": _vae(3, 0.08333),
        "text_encoder": _H,
    },
    "sdxl": {
        "unet": _unet(
            128,
            (320, 640, 1280),
            "-xx",
            2048,
            (5, 10, 20),
            transformer_layers_per_block=(1, 2, 10),
            projection_class_embeddings_input_dim=2816,
            **_WIDE,
            **_SIZES,
        ),
        "vae": _vae(4, 0.13025),
        "text_encoder": _L,
        "text_encoder_2": _BIG_G,
    },
    "sdxl_refiner": {
        "unet": _unet(
            128,
            (384, 768, 1536, 1536),
            "-xx-",
            1280,
            (6, 12, 24, 24),
            transformer_layers_per_block=4,
            projection_class_embeddings_input_dim=2560,
            **_WIDE,
            **_SIZES,
        ),
        "vae": _vae(4, 0.13025),
        "text_encoder_2": _BIG_G,
    },
}
"""config.json of each part of each model that such files hold; `in_channels` follows from the file."""

_PREFIXES = {
    "sd1": {"text_encoder": "cond_stage_model.transformer"},
    "sd2": {"text_encoder": "cond_stage_model.model"},
    "upscale": {"text_encoder": "cond_stage_model.model"},
    "sdxl": {"text_encoder": "conditioner.embedders.0.transformer", "text_encoder_2": "conditioner.embedders.1.model"},
    "sdxl_refiner": {"text_encoder_2": "conditioner.embedders.0.model"},
}
_SHARED = {"unet": "model.diffusion_model", "vae": "first_stage_model"}
KINDS = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
_PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "upscale": "StableDiffusionUpscalePipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl_refiner": "StableDiffusionXLImg2ImgPipeline",
}
# what model_index.json says of them besides
_MORE: dict[str, dict[str, Any]] = {
    "upscale": {"low_res_scheduler": ["diffusers", "DDPMScheduler"], "max_noise_level": 350},
    "sdxl_refiner": {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
}
LOW_RES = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}
"""The noise on the pictures that the x4 upscaler was trained with, for files that do not say it."""
# training's leftovers: averages of the weights, the schedule's tables
_SKIPPED = re.compile(
    r"model_ema\..*|betas|alphas_cumprod.*|sqrt_.*|log_one_minus.*|posterior_.*|lvlb_weights|logvar|global_step|"
    r"denoiser\..*|v_pred|ztsnr|low_scale_model\..*|scale_factor|cond_stage_model\.(attn_mask|logit_scale)|model\.betas"
)


def detect(tensors: Mapping[str, Any]) -> str:
    """Which of `PRESETS` a file's tensors are of.

    Raises:
      ValueError: if they are of none.
    """
    starts = {
        "conditioner.embedders.1.model.": "sdxl",
        "conditioner.embedders.0.model.": "sdxl_refiner",
        "cond_stage_model.model.": "upscale" if "model.diffusion_model.label_emb.weight" in tensors else "sd2",
        "cond_stage_model.transformer.": "sd1",
    }
    for start, name in starts.items():
        if any(tensor.startswith(start) for tensor in tensors):
            return name
    raise ValueError(
        f"no single-file checkpoint of Stable Diffusion: none of its {len(tensors)} tensors begins with "
        f"{', '.join(starts)}; LoRA files go to pretrained.lora, diffusers' parts to read_component"
    )


def read(
    path: Path | str,
    *,
    tokenizer: Path | str | None = None,
    prediction: str | None = None,
    dtype: Any = None,
    shardings: Shardings | None = None,
    configs: Mapping[str, Json] | None = None,
) -> Bundle:
    """A pipeline from one file (.safetensors, or .ckpt through the restricted loader).

    Args:
      path: the file.
      tokenizer: a directory with CLIP's vocab.json and merges.txt; the file has none.
      prediction: epsilon or v_prediction; needed for Stable Diffusion 2, whose files do not tell.
      dtype: of the parameters; None keeps what the file has.
      shardings: where parameters go; None: to the default device.
      configs: config.json by part, where they are not the published models'.

    Raises:
      ValueError: if the file is no such checkpoint, tensors do not fit, or `prediction` is needed.
    """
    tensors = files.read_tensors(path)
    name = detect(tensors)
    given = {part: dict((configs or {}).get(part, preset)) for part, preset in PRESETS[name].items()}
    first = f"{_SHARED['unet']}.input_blocks.0.0.weight"
    if first in tensors:
        given["unet"].setdefault("in_channels", tensors[first].shape[1])
    scheduler = _scheduler(name, prediction or ("v_prediction" if "v_pred" in tensors else None), given["unet"])
    if name == "sd2" and scheduler["prediction_type"] == "v_prediction":
        given["unet"]["sample_size"] = 96  # 768 pixels
    left = {tensor for tensor in tensors if not _SKIPPED.fullmatch(tensor)}
    components, problems = {}, []
    for part, prefix in prefixes(name).items():
        json = {"_class_name": KINDS[part], **given[part]}
        one = family(KINDS[part])
        net = one.config(json)
        shapes = one.shapes(net, json)
        own = {tensor: tensors[tensor] for tensor in left if tensor.startswith(prefix + ".")}
        left -= own.keys()
        where = None if shardings is None else (lambda shapes, part=part: shardings(part, shapes))
        try:
            params = from_tensors(own, shapes, rules(part, prefix, net, json), placed(shapes, dtype, where))
            components[part] = Component(KINDS[part], json, net, params)
        except TensorError as error:
            problems.append(f"{part}: {error}")
    if left:
        problems.append("of no part: " + ", ".join(sorted(left)))
    if problems:
        raise TensorError(f"{path} does not fit {name}:\n" + "\n".join(problems))
    index: dict[str, Any] = {"_class_name": _PIPELINES[name], "scheduler": ["diffusers", scheduler["_class_name"]]}
    for part, component in components.items():
        index[part] = ["transformers" if part.startswith("text") else "diffusers", component.kind]
        if part.startswith("text"):
            index[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    index |= _MORE.get(name, {})
    words, schedulers = {}, dict[str, Any](scheduler=scheduler)
    if "low_res_scheduler" in index:
        schedulers["low_res_scheduler"] = LOW_RES
    if tokenizer:
        whole = tokenizer_clip.read(tokenizer)
        for part, prefix in _PREFIXES[name].items():
            pad = tokenizer_clip.END if prefix.endswith(".transformer") else "!"  # CLIP's, OpenCLIP's
            words[part.replace("text_encoder", "tokenizer")] = dataclasses.replace(whole, pad=pad)
    return Bundle(_PIPELINES[name], index, components, words, schedulers)


def write(bundle: Bundle, path: Path | str) -> None:
    """One safetensors file of a bundle's U-Net, autoencoder and text encoders, in its authors' layout.

    Raises:
      ValueError: if the bundle has not the parts of one of `PRESETS`.
    """
    name = _layout(bundle)
    tensors: dict[str, Stored] = {}
    for part, prefix in prefixes(name).items():
        one = bundle.components[part]
        tensors |= to_tensors(one.params, rules(part, prefix, one.config, one.json))
    files.write_safetensors(path, tensors)


def prefixes(name: str) -> dict[str, str]:
    """How the tensors of each part begin."""
    return {**_SHARED, **_PREFIXES[name]}


def rules(part: str, prefix: str, net: Any, json: Json) -> Rules:
    """The table of one part, prefix included."""
    if part == "unet":
        table = compvis.unet_rules(net, json)
    elif part == "vae":
        table = compvis.autoencoder_rules(net)
    elif prefix.endswith(".transformer"):
        table = clip.TEXT_RULES
    else:
        table = compvis.openclip_rules(net.layers)
    return under(prefix, "", table)


def _layout(bundle: Bundle) -> str:
    parts = bundle.components
    texts = {name for name in parts if name.startswith("text_encoder")}
    if "unet" in parts and "vae" in parts:
        if texts == {"text_encoder", "text_encoder_2"}:
            return "sdxl"
        if texts == {"text_encoder_2"}:
            return "sdxl_refiner"
        if texts == {"text_encoder"} and parts["text_encoder"].config.activation == "quick_gelu":
            return "sd1"
        if texts == {"text_encoder"}:
            return "upscale" if parts["unet"].config.labels else "sd2"
    raise ValueError(f"{bundle.kind} with {', '.join(sorted(parts))} has no single-file layout: write a directory")


def _scheduler(name: str, prediction: str | None, unet: Json) -> dict[str, Any]:
    """What the authors sample with."""
    if name == "sd2" and prediction is None and unet.get("in_channels", 4) == 4:
        raise ValueError(
            "a file of Stable Diffusion 2 does not tell what its network predicts: pass prediction='v_prediction' for "
            "the 768 model or prediction='epsilon' for the base (512) model"
        )
    kind = prediction or ("v_prediction" if name == "upscale" else "epsilon")
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    if name == "upscale":
        betas = {"beta_schedule": "scaled_linear", "beta_start": 0.0001, "beta_end": 0.02}
    shared = {**betas, "steps_offset": 1, "prediction_type": kind, "timestep_spacing": "leading"}
    if name.startswith("sdxl"):
        return {"_class_name": "EulerDiscreteScheduler", **shared}
    return {"_class_name": "DDIMScheduler", **shared, "set_alpha_to_one": False, "clip_sample": False}
