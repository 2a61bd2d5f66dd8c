"""Outputs of small U-Nets of IF, unCLIP and Kandinsky (diffusers 0.42.1, torch 2.13), weights by formula.

    python tests/reference/imagen_unet.py

Writes imagen_unet.npz: each model's config, the shapes of its tensors, its inputs' names and its output.
"""

import pathlib

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from sd_weights import noise, save, take

SIMPLE = {
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "cross_attention_dim": 32,
    "resnet_time_scale_shift": "scale_shift",
    "in_channels": 3,
    "out_channels": 6,
}
IF = {
    **SIMPLE,
    "act_fn": "gelu",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 4,
    "cross_attention_norm": "group_norm",
    "encoder_hid_dim": 24,
}
CONDITION = {
    "if one": IF,
    "if two": {
        **IF,
        "in_channels": 6,
        "layers_per_block": (1, 2),
        "class_embed_type": "timestep",
        "only_cross_attention": True,
        "mid_block_scale_factor": 1.5,
        "resnet_out_scale_factor": 1 / 0.7071,
        "resnet_skip_time_act": True,
        "time_embedding_act_fn": "gelu",
        "time_embedding_dim": 32,
    },
    "if without a projection": {**IF, "encoder_hid_dim": None, "mid_block_only_cross_attention": True},
    "karlo": {**SIMPLE, "class_embed_type": "identity"},
    "kandinsky": {
        **SIMPLE,
        "in_channels": 4,
        "out_channels": 8,
        "addition_embed_type": "text_image",
        "encoder_hid_dim": 24,
        "encoder_hid_dim_type": "text_image_proj",
    },
    "kandinsky 2.2": {
        **SIMPLE,
        "in_channels": 4,
        "out_channels": 8,
        "addition_embed_type": "image",
        "encoder_hid_dim": 24,
        "encoder_hid_dim_type": "image_proj",
    },
    "kandinsky 2.2 with a hint": {
        **SIMPLE,
        "in_channels": 8,
        "out_channels": 8,
        "addition_embed_type": "image_hint",
        "encoder_hid_dim": 24,
        "encoder_hid_dim_type": "image_proj",
    },
    "gelu in a latent model": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
        "act_fn": "gelu",
        "resnet_time_scale_shift": "scale_shift",
        "mid_block_scale_factor": 1.2,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 4,
        "time_embedding_dim": 48,
    },
}
PIXELS = {
    "karlo larger": {
        "down_block_types": ("ResnetDownsampleBlock2D",) * 2,
        "up_block_types": ("ResnetUpsampleBlock2D",) * 2,
        "block_out_channels": (16, 32),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "in_channels": 6,
        "out_channels": 3,
        "add_attention": False,
        "resnet_time_scale_shift": "scale_shift",
        "downsample_type": "resnet",
        "upsample_type": "resnet",
    }
}
T = torch.tensor([17.0, 801.0])


def given(name, config):
    """The arrays that a case takes, by jaxdiff's names."""
    wide, hidden = config["cross_attention_dim"], config.get("encoder_hid_dim")
    adds, inputs = config.get("addition_embed_type"), {}
    if config.get("encoder_hid_dim_type") != "image_proj":
        inputs["context"] = noise("context", (2, 5, hidden or wide))
    if config.get("class_embed_type") == "timestep":
        inputs["augment"] = torch.tensor([20.0, 250.0]).numpy()
    if config.get("class_embed_type") == "identity":
        inputs["pooled"] = noise("pooled", (2, 4 * config["block_out_channels"][0]))
    if adds == "text_image":
        inputs |= {"pooled": noise("pooled", (2, wide)), "embed": noise("embed", (2, wide))}
    if adds in ("image", "image_hint"):
        inputs["embed"] = noise("embed", (2, hidden))
    if adds == "image_hint":
        inputs["image"] = noise("image", (2, 64, 64, 3))
    return inputs


@torch.no_grad()
def main():
    cases = {}
    for name, config in CONDITION.items():
        model = take(UNet2DConditionModel(**config))
        inputs = {k: torch.tensor(v) for k, v in given(name, config).items()}
        labels = inputs.get("augment", inputs.get("pooled") if config.get("class_embed_type") == "identity" else None)
        added = {}
        if "embed" in inputs:
            added = {"image_embeds": inputs["embed"]}
            added |= {"text_embeds": inputs["pooled"]} if "pooled" in inputs else {}
            added |= {"hint": inputs["image"].permute(0, 3, 1, 2)} if "image" in inputs else {}
        x = torch.tensor(noise("x", (2, model.config.in_channels - 4 * ("image" in inputs), 8, 8)))
        y = model(x, T, inputs.get("context"), class_labels=labels, added_cond_kwargs=added).sample
        kept = {f"given {k}": v for k, v in inputs.items() if k != "image"}
        cases[name] = (model, {"y": y, **kept})
    for name, config in PIXELS.items():
        model = take(UNet2DModel(**config))
        cases[name] = (model, {"y": model(torch.tensor(noise("x", (2, 6, 8, 8))), T).sample})
    save(pathlib.Path(__file__).with_name("imagen_unet.npz"), cases)


if __name__ == "__main__":
    main()
