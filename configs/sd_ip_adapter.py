"""An IP-adapter for a Stable Diffusion model: pictures as prompts, on a folder of captioned pictures.

Paper: Ye et al. 2023, arXiv 2308.06721: four tokens, a rate of 1e-4, caption, picture and both left out of 5% each.
Hardware: one GPU of 24 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_ip_adapter.py --task.model DIR --task.image-encoder CLIP --data.name ./my-pictures,
  then jaxdiff sample --model runs/sd_ip_adapter --picture a.png --prompt "...", or jaxdiff convert --model
  runs/sd_ip_adapter --out mine.safetensors and --model DIR --ip-adapter mine.safetensors --image-encoder CLIP.
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import ip_adapter
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_ip_adapter",
        task=ip_adapter.Config(
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=30, guidance=7.5),
        ),
        optimizer=dataclasses.replace(base.optimizer, lr=1e-4),
        train=TrainConfig(steps=20_000, batch_size=8, log_every=20, preview_every=500),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    return sd_finetune.shrunk(config())
