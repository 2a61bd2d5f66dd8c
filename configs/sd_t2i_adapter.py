"""A T2I-adapter for a Stable Diffusion model that follows edges, on a folder of captioned pictures.

Paper: Mou et al. 2023, arXiv 2302.08453: a rate of 1e-5, batches of 8.
Hardware: one GPU of 24 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_t2i_adapter.py --task.model DIR --data.name ./my-pictures, then
  jaxdiff sample --model runs/sd_t2i_adapter --prompt "..." --hint edges.png, or jaxdiff convert --model
  runs/sd_t2i_adapter --out my-adapter and --model DIR --adapter my-adapter.
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import t2i_adapter
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_t2i_adapter",
        task=t2i_adapter.Config(
            drop=0.1,
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=30, guidance=7.5),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=1e-5),
        train=TrainConfig(steps=10_000, batch_size=8, log_every=20, preview_every=500),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
