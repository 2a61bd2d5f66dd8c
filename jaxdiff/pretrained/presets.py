"""The published models that come as one file: config.json of each part, how its tensors begin, and its pipeline."""

from typing import Any

from jaxdiff.pretrained.components import Json

_CROSS, _PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
_UP_CROSS, _UP_PLAIN = "CrossAttnUpBlock2D", "UpBlock2D"


def _unet(side: int, channels: tuple[int, ...], crossed: str, context: int, heads: Any, **more: Any) -> Json:
    """Returns a U-Net's config.json; `crossed` has an x for each level with cross-attention."""
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

PREFIXES = {
    "sd1": {"text_encoder": "cond_stage_model.transformer"},
    "sd2": {"text_encoder": "cond_stage_model.model"},
    "upscale": {"text_encoder": "cond_stage_model.model"},
    "sdxl": {"text_encoder": "conditioner.embedders.0.transformer", "text_encoder_2": "conditioner.embedders.1.model"},
    "sdxl_refiner": {"text_encoder_2": "conditioner.embedders.0.model"},
}
SHARED = {"unet": "model.diffusion_model", "vae": "first_stage_model"}
KINDS = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "upscale": "StableDiffusionUpscalePipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl_refiner": "StableDiffusionXLImg2ImgPipeline",
}
# what model_index.json says of them besides
MORE: dict[str, dict[str, Any]] = {
    "upscale": {"low_res_scheduler": ["diffusers", "DDPMScheduler"], "max_noise_level": 350},
    "sdxl_refiner": {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
}
LOW_RES = {"_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.0001, "beta_end": 0.02}
"""The noise on the pictures that the x4 upscaler was trained with, for files that do not say it."""
