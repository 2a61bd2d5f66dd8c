"""A LoRA of a Stable Diffusion model (1.x, 2.x, XL; a directory or a single file) on a folder of captioned pictures:
rank 16 in the attention of U-Net and text encoders.

Paper: Hu et al. 2021, arXiv 2106.09685; the learning rate is that of diffusers' script.
Hardware: one GPU of 16 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_lora.py --task.model DIR --data.name ./my-pictures, then
  jaxdiff sample --model DIR --lora runs/sd_lora:0.8 --prompt "..." or jaxdiff convert --model runs/sd_lora --out
  mine.safetensors. DreamBooth: --task.prior.prompt "a photo of a dog" keeps the class as it is.
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import lora
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_lora",
        task=lora.Config(
            parts=("attention", "text_attention"),
            drop=0.05,
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=30, guidance=7.5),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=1e-4, warmup=100),
        train=TrainConfig(steps=2000, batch_size=4, log_every=20, preview_every=500),
        checkpoint=CheckpointConfig(every=500),
        ema=0.99,
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
