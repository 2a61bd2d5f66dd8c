"""Improved DDPM on CIFAR-10: cosine schedule, 4000 steps, learned variances, the hybrid loss.

Paper: Nichol & Dhariwal 2021, arXiv 2102.09672, and its released code: Adam 1e-4, 500k steps of 128, EMA 0.9999,
dropout 0.3, three residual blocks a level, attention of four heads at 16 and 8, time scales and shifts.
Hardware: 8 accelerators. Time: not measured yet.
Result: FID 3.19 and 3.17 bits/dim in the paper (table 2, 4000 steps); ours not measured yet.
Command: jaxdiff train configs/cifar10_improved.py
"""

import cifar10

from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.training import OptimizerConfig, TrainConfig


def config() -> Experiment:
    net = UNetConfig(
        out_channels=6,
        layers=3,
        attention=("none", "self", "self", "none"),
        heads=(4, 4, 4, 4),
        scale_shift=True,
        dropout=0.3,
    )
    return cifar10.with_process(
        "cifar10_improved",
        PUBLISHED["improved_ddpm"],
        net,
        optimizer=OptimizerConfig(name="adam", lr=1e-4, decay="constant", clip=0.0),
        train=TrainConfig(steps=500_000, batch_size=128, log_every=100, preview_every=10_000),
    )


def small() -> Experiment:
    return cifar10.shrunk(config())
