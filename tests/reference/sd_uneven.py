"""Outputs of a small Stable Diffusion (diffusers 0.42.1) at latents of 9x11, which halve to 5x6 and 3x3: sd_uneven.npz.

    python tests/reference/sd_uneven.py

The file keeps the U-Net, alone and with a ControlNet, and pictures of a pipeline that else has sd_pipeline.npz's parts.
"""

import pathlib

import diffusers
import numpy as np
import sd_parts
import sd_pipeline
import sd_unet
import torch
import transformers
from sd_weights import noise, save, take

LEVELS = {
    "block_out_channels": (16, 16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "attention_head_dim": 4,
}
UP = {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")}
SIZE = 9, 11


@torch.no_grad()
def main():
    net = {**sd_unet.TINY, **LEVELS}
    unet = take(diffusers.UNet2DConditionModel(**net, **UP))
    control = take(diffusers.ControlNetModel(**{**net, **sd_parts.CONTROLS["plain"]}))
    x, context = torch.tensor(noise("x", (2, 4, *SIZE))), torch.tensor(noise("context", (2, 5, 24)))
    hint = torch.tensor(noise("hint", (2, 3, *(2 * side for side in SIZE))))
    more, middle = control(x, sd_unet.T, context, hint, return_dict=False)
    residuals = {"down_block_additional_residuals": more, "mid_block_additional_residual": middle}
    pipe = diffusers.StableDiffusionPipeline(
        unet=unet,
        vae=take(diffusers.AutoencoderKL(**sd_parts.AUTOENCODERS["sd"])),
        text_encoder=take(transformers.CLIPTextModel(transformers.CLIPTextConfig(**sd_pipeline.TEXT))),
        tokenizer=sd_pipeline.tokenizer(),
        scheduler=sd_pipeline.SAMPLERS["ddim"],
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    # it wants multiples of 8 whatever the autoencoder; this one makes two pixels of a latent
    pipe.check_inputs = lambda *args, **options: None
    pictures = pipe(
        sd_pipeline.PROMPTS,
        num_inference_steps=5,
        guidance_scale=sd_pipeline.GUIDANCE,
        negative_prompt=[sd_pipeline.NEGATIVE] * 2,
        latents=torch.tensor(noise("first", (2, 4, *SIZE)) * np.float32(1.7)),
        height=2 * SIZE[0],
        width=2 * SIZE[1],
        output_type="np",
    ).images
    outputs = {
        "y": unet(x, sd_unet.T, context).sample,
        "controlled": unet(x, sd_unet.T, context, **residuals).sample,
        "pictures": torch.tensor((pictures * 65535).round().astype(np.uint16)),
    }
    cases = {"unet_uneven": (unet, outputs), "control_uneven": (control, {})}
    save(pathlib.Path(__file__).with_name("sd_uneven.npz"), cases)


if __name__ == "__main__":
    main()
