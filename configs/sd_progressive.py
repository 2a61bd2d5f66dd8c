"""A student of a Stable Diffusion model that predicts v, with half of its teacher's steps: one run for each halving.

Papers: Salimans & Ho 2022, arXiv 2202.00512; Meng et al. 2023, arXiv 2210.03142 (guidance in the student).
Hardware: one GPU of 40 GB for Stable Diffusion 2.1. Time and result: not measured here.
Command: jaxdiff train configs/sd_progressive.py --task.model DIR --task.steps 8 --task.guidance 7.5 7.5 --data.name
  ./my-pictures, jaxdiff convert --model runs/sd_progressive --out student-8, then again from student-8 with
  --task.steps 4 --task.guidance 1 1, and so on; jaxdiff sample --model student-8 --steps 8 --guidance 1 --prompt "...".
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import progressive
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_progressive",
        task=progressive.Config(
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=8, guidance=1.0),
        ),
        optimizer=dataclasses.replace(base.optimizer, warmup=500, weight_decay=0.0),
        train=TrainConfig(steps=10_000, batch_size=8, log_every=50, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000),
        ema=0.99,
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
