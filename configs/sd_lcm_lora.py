"""A LoRA that makes a Stable Diffusion model, and what was fine-tuned from it, sample in 2 to 8 steps.

Paper: Luo et al. 2023, arXiv 2311.05556 (LCM-LoRA): rank 64.
Hardware: one GPU of 24 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_lcm_lora.py --task.model DIR --data.name ./my-pictures, then
  jaxdiff sample --model DIR --lora runs/sd_lcm_lora --sampler lcm --steps 4 --guidance 1 --prompt "...".
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import lcm_lora
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_lcm_lora",
        task=lcm_lora.Config(
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=4, guidance=1.0),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=1e-4, warmup=100, weight_decay=0.0),
        train=TrainConfig(steps=5000, batch_size=8, log_every=50, preview_every=500),
        checkpoint=CheckpointConfig(every=500),
        ema=0.0,
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
