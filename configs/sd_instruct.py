"""A Stable Diffusion model learns to edit pictures by instructions, from pairs of pictures with instructions.

Paper: Brooks et al. 2023, arXiv 2211.09800: each of caption, picture and both left out of 5%, a rate of 1e-4.
Hardware: one GPU of 40 GB for Stable Diffusion 1.5 at 256 pixels. Time and result: not measured here.
Command: jaxdiff train configs/sd_instruct.py --task.model DIR --data.name ./my-pairs, whose metadata.jsonl has lines
  {"file_name": "after/1.png", "text": "make it red", "hint": "before/1.png"}; then
  jaxdiff sample --model runs/sd_instruct --image 1.png --prompt "make it blue".
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import instruct
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_instruct",
        task=instruct.Config(
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("make it red",) * 4, steps=30, guidance=7.5),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=1e-4, warmup=500),
        train=TrainConfig(steps=15_000, batch_size=16, accumulate=2, log_every=50, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000),
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
