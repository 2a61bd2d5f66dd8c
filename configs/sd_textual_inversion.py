"""A new word for a Stable Diffusion model, learned from a few pictures: two vectors that start from words of its kind.

Paper: Gal et al. 2022, arXiv 2208.01618: 5000 steps at a rate of 5e-3 (batch 4).
Hardware: one GPU of 16 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_textual_inversion.py --task.model DIR --data.name ./my-toy --task.word "<my-toy>"
  --task.init toy, then jaxdiff sample --model runs/sd_textual_inversion --prompt "a <my-toy> in the snow".
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import textual_inversion
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_textual_inversion",
        task=textual_inversion.Config(
            word="<new>",
            init="a toy",
            vectors=2,
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo of <new>",) * 4, steps=30, guidance=7.5),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=5e-3, weight_decay=0.0),
        train=TrainConfig(steps=5000, batch_size=4, log_every=20, preview_every=500),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
