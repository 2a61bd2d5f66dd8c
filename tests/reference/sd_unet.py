"""Outputs of small diffusers U-Nets (diffusers 0.42.1, torch 2.13) with weights by formula: sd_unet.npz.

    python tests/reference/sd_unet.py

The file keeps each model's config, the shapes of its tensors and its output; `sd_weights` makes the rest.
"""

import pathlib

import numpy as np
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from sd_weights import noise, save, take

TINY = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 24}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
LATER = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
CONDITION = {
    "sd1": {**TINY, **CROSS, "layers_per_block": 2, "attention_head_dim": 4},
    "sd2": {**TINY, **CROSS, "attention_head_dim": (2, 4), "use_linear_projection": True},
    "sdxl": {
        **TINY,
        **LATER,
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 20 + 6 * 8,
    },
    "inpaint": {**TINY, **CROSS, "in_channels": 9, "attention_head_dim": 4},
    "upscale": {
        **TINY,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 32, 64),
        "in_channels": 7,
        "attention_head_dim": 4,
        "num_class_embeds": 50,
        "only_cross_attention": (True, True, False),
        "use_linear_projection": True,
    },
    "unclip": {
        **TINY,
        **CROSS,
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 20,
    },
    "noise_level": {**TINY, **CROSS, "attention_head_dim": 4, "class_embed_type": "timestep"},
}
PIXELS = {
    "ddpm": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "layers_per_block": 2,
    },
    "ldm": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 16,
        "layers_per_block": 1,
    },
    "adm": {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "attention_head_dim": 16,
        "layers_per_block": 1,
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 8,
        "num_class_embeds": 11,
    },
}
T = torch.tensor([17.0, 801.0])


def image(name, config, side=8):
    return torch.tensor(noise(name, (2, config.in_channels, side, side)))


@torch.no_grad()
def main():
    cases = {}
    for name, config in CONDITION.items():
        model = take(UNet2DConditionModel(**config))
        options = {}
        if model.config.addition_embed_type:
            sizes = torch.tensor([[64.0, 48, 0, 8, 64, 64], [32, 32, 4, 0, 128, 64]])
            options["added_cond_kwargs"] = {"text_embeds": torch.tensor(noise("pooled", (2, 20))), "time_ids": sizes}
        if model.config.num_class_embeds:
            options["class_labels"] = torch.tensor([3, 49])
        if model.config.class_embed_type == "projection":
            options["class_labels"] = torch.tensor(noise("pooled", (2, 20)))
        if model.config.class_embed_type == "timestep":
            options["class_labels"] = torch.tensor([20.0, 350.0])
        context = torch.tensor(noise("context", (2, 5, 24)))
        y = model(image("x", model.config), T, context, **options).sample
        cases[name] = (model, {"y": y})
    for name, config in PIXELS.items():
        config = {"block_out_channels": (32, 64), "norm_num_groups": 8, **config}
        model = take(UNet2DModel(**config))
        labels = torch.tensor([3, 10]) if model.config.num_class_embeds else None
        cases[name] = (model, {"y": model(image("x", model.config), T, labels).sample})
    save(pathlib.Path(__file__).with_name("sd_unet.npz"), cases)


if __name__ == "__main__":
    np.set_printoptions(precision=4)
    main()
