"""Every emoji without skin tones and flags, 1,659 in all, at 32x32.

Paper: Nichol et al. 2021 (GLIDE), arXiv 2112.10741; x0 prediction as in quickstart.py.
Hardware: one accelerator, or two CPU cores. Time: an afternoon on the latter. Result: not measured yet.
Command: jaxdiff train configs/openmoji32.py
"""

import dataclasses

import quickstart

from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = quickstart.config()
    return dataclasses.replace(
        base,
        name="openmoji32",
        task=dataclasses.replace(
            base.task,
            net=dataclasses.replace(base.task.net, channels=(64, 128, 192), layers=2, heads=(2, 4, 6)),
            text=TextConfig(vocabulary=2048, length=32, width=192, layers=4, heads=6),
            vocabulary=2048,
        ),
        data=dataclasses.replace(base.data, split="train", subset="plain"),
        held_out="test",
        ema=0.999,
        optimizer=OptimizerConfig(lr=5e-4, warmup=200),
        train=TrainConfig(steps=20_000, batch_size=64, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000, best="ema_loss"),
    )


def small() -> Experiment:
    return quickstart.shrunk(config())
