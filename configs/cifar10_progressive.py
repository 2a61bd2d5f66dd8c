"""Progressive distillation on CIFAR-10: from 1024 steps to one, halving by itself; learned from cifar10_cosine_v.py.

Paper: Salimans & Ho 2022, arXiv 2202.00512, section 4: 50k updates of 128 for each number of steps, which is 550k for
the eleven of this run. The paper begins at 8192 steps, takes twice as long for 2 and 1 steps, and lets the learning
rate fall to 0 in each stage.
Hardware: 8 accelerators. Time: not measured yet.
Result: FID 9.12, 4.51 and 3.00 at 1, 2 and 4 steps in the paper; ours not measured yet.
Command: jaxdiff train configs/cifar10_cosine_v.py; jaxdiff train configs/cifar10_progressive.py
"""

import dataclasses
from pathlib import Path

import cifar10

from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.experiment import Experiment
from jaxdiff.models import unet
from jaxdiff.training import OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = cifar10.with_process(
        "cifar10_progressive",
        PUBLISHED["progressive"],
        unet.cifar10(dropout=0.0),
        steps=4,
        optimizer=OptimizerConfig(name="adam", lr=1e-4, decay="constant"),
        train=TrainConfig(steps=550_000, batch_size=128, log_every=100, preview_every=10_000),
    )
    return dataclasses.replace(base, task=dataclasses.replace(base.task, teacher=Path("runs/cifar10_cosine_v")))


def small() -> Experiment:
    base = cifar10.shrunk(config())
    process = dataclasses.replace(base.task.process, intervals=(4, 1), stage=2)
    task = dataclasses.replace(base.task, process=process, teacher=Path("runs/cifar10_cosine_v-small"))
    return dataclasses.replace(base, task=task)
