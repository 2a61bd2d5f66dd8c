"""A ControlNet for a Stable Diffusion model that follows edges, on a folder of captioned pictures.

Paper: Zhang et al. 2023, arXiv 2302.05543: captions left out of half, a rate of 1e-5.
Hardware: one GPU of 40 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_controlnet.py --task.model DIR --data.name ./my-pictures, then
  jaxdiff sample --model runs/sd_controlnet --prompt "..." --hint edges.png, or jaxdiff convert --model
  runs/sd_controlnet --out my-controlnet and --model DIR --controlnet my-controlnet. Other hints: --task.hint files
  --task.folder ./my-hints.
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import controlnet
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_controlnet",
        task=controlnet.Config(
            drop=0.5,
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=30, guidance=7.5),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=1e-5),
        train=TrainConfig(steps=5000, batch_size=4, log_every=20, preview_every=500),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    made = sd_finetune.shrunk(config())
    return dataclasses.replace(made, task=dataclasses.replace(made.task, hint_channels=(4, 4)))
