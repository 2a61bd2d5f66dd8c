"""Fine-tuning of a Stable Diffusion model (1.x, 2.x, XL; a directory or a single file) on a folder of captioned
pictures: the whole U-Net at a small rate, captions left out of 10%, text encoders frozen.

Paper: Rombach et al. 2022, arXiv 2112.10752; min-SNR weights: Hang et al. 2023, arXiv 2303.09556.
Hardware: one GPU of 40 GB for Stable Diffusion 1.5 in bfloat16. Time and result: not measured here.
Command: jaxdiff train configs/sd_finetune.py --task.model DIR --data.name ./my-pictures, then
  jaxdiff sample --model runs/sd_finetune --prompt "..."; a file of one model needs --task.tokenizer DIR.
"""

import dataclasses

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.tasks import finetune
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="sd_finetune",
        task=finetune.Config(
            drop=0.1,
            min_snr=5.0,
            dtype="bfloat16",
            remat="blocks",
            preview=PreviewConfig(prompts=("a photo",) * 4, steps=30, guidance=7.5),
        ),
        data=DataConfig(name="./pictures", size=512),
        ema=0.999,
        optimizer=OptimizerConfig(lr=1e-5, warmup=500, decay="constant"),
        train=TrainConfig(steps=10_000, batch_size=8, accumulate=2, log_every=50, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """The same kind of run in a few steps on 16x16 emoji, of a model as small as that: give it as --task.model."""
    task = dataclasses.replace(
        base.task, dtype="float32", remat="none", preview=PreviewConfig(("a red heart",), steps=2)
    )
    return dataclasses.replace(
        base,
        name=f"{base.name}-small",
        task=task,
        data=DataConfig(name="openmoji", split="all", subset="quickstart", size=16, workers=0),
        ema=0.0,
        optimizer=dataclasses.replace(base.optimizer, warmup=0),
        train=TrainConfig(steps=6, batch_size=8, log_every=1, preview_every=6),
        checkpoint=CheckpointConfig(every=3),
    )
