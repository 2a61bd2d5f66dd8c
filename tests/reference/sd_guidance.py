"""Outputs of a small U-Net that is told the scale of guidance (diffusers 0.42.1), weights by formula: sd_guidance.npz.

    python tests/reference/sd_guidance.py

The waves of the scale are those of LatentConsistencyModelPipeline, which gives the scale less 1.
"""

import pathlib

import torch
from diffusers import LatentConsistencyModelPipeline, UNet2DConditionModel
from sd_weights import noise, save, take

SCALES = (1.0, 8.5)


@torch.no_grad()
def main():
    unet = take(
        UNet2DConditionModel(
            block_out_channels=(8, 8),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=8,
            attention_head_dim=2,
            time_cond_proj_dim=16,
        )
    )
    waves = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, torch.tensor(SCALES) - 1, embedding_dim=16
    )
    x, context = torch.tensor(noise("x", (2, 4, 8, 8))), torch.tensor(noise("context", (2, 5, 8)))
    y = unet(x, torch.tensor([17.0, 801.0]), context, timestep_cond=waves).sample
    save(pathlib.Path(__file__).with_name("sd_guidance.npz"), {"unet_told": (unet, {"y": y})})


if __name__ == "__main__":
    main()
