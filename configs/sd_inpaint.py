"""A Stable Diffusion model learns to fill what a mask leaves out of a picture, on a folder of captioned pictures.

Paper: Rombach et al. 2022, arXiv 2112.10752, section 4.5; a quarter of the masks are all of the picture.
Hardware: one GPU of 40 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_inpaint.py --task.model DIR --data.name ./my-pictures, then
  jaxdiff sample --model runs/sd_inpaint --image a.png --mask b.png --prompt "...".
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import inpaint
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_inpaint",
        task=inpaint.Config(
            drop=0.1,
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=30, guidance=7.5),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=1e-5, warmup=500),
        train=TrainConfig(steps=20_000, batch_size=8, accumulate=2, log_every=50, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000),
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
