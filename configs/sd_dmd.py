"""A student of a Stable Diffusion model (1.x, 2.x, XL) that samples in 1 to 4 steps: distribution matching, a critic.

Paper: Yin et al. 2024, arXiv 2405.14867 (DMD2): the fake moves five times for each of the student's, guidance 8 for
SDXL, a student of 4 steps that begins its later ones with what it made itself.
Hardware: one GPU of 80 GB for Stable Diffusion 1.5. Time and result: not measured here.
Command: jaxdiff train configs/sd_dmd.py --task.model DIR --data.name ./my-pictures, then
  jaxdiff sample --model runs/sd_dmd --prompt "..." --steps 4 --guidance 1.
"""

import dataclasses

import sd_finetune

from jaxdiff.experiment import Experiment
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.tasks import dmd
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig

RATE = OptimizerConfig(lr=5e-6, b1=0.0, warmup=500, decay="constant", weight_decay=0.0)


def config() -> Experiment:
    base = sd_finetune.config()
    return dataclasses.replace(
        base,
        name="sd_dmd",
        task=dmd.Config(
            dtype="bfloat16",
            remat="blocks",
            adversarial=5e-3,
            groups=(("(fake|critic)/.*", RATE),),
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=4, guidance=1.0),
        ),
        optimizer=dataclasses.replace(RATE, every=5),
        train=TrainConfig(steps=20_000, batch_size=8, log_every=50, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000),
        ema=0.99,
    )


def small() -> Experiment:
    base = sd_finetune.shrunk(config())
    rate = dataclasses.replace(RATE, warmup=0)
    critic = PatchCriticConfig(width=4, layers=1, groups=4)
    task = dataclasses.replace(base.task, groups=(("(fake|critic)/.*", rate),), steps=2, critic=critic)
    return dataclasses.replace(base, task=task)
