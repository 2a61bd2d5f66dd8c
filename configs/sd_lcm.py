"""A student of a Stable Diffusion model (1.x, 2.x, XL) that samples in 1 to 8 steps: latent consistency distillation.

Paper: Luo et al. 2023, arXiv 2310.04378: 50 intervals, guidance drawn from 4 to 16, embedded for the
student by 256 waves, an average of 0.95.
Hardware: one GPU of 40 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_lcm.py --task.model DIR --data.name ./my-pictures, then
  jaxdiff sample --model runs/sd_lcm --prompt "..." --steps 4 --guidance 8.
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import lcm
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_lcm",
        task=lcm.Config(
            dtype="bfloat16",
            remat="blocks",
            guidance_width=256,
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=4, guidance=8.0),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=1e-5, warmup=500, weight_decay=0.0),
        train=TrainConfig(steps=10_000, batch_size=8, log_every=50, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000),
        ema=0.95,
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
