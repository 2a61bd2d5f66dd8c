"""Consistency distillation on CIFAR-10: pictures in one step, learned from the run of cifar10_edm.py.

Paper: Song et al. 2023, arXiv 2303.01469, appendix C: 18 levels, 800k steps of 512, lr 4e-4, EMA 0.9999. The paper's
RAdam is Adam here, its Heun step of the teacher one of DDIM, its LPIPS the pseudo-Huber distance of arXiv 2310.14189.
Hardware: 8 accelerators. Time: not measured yet.
Result: FID 3.55 in one step and 2.93 in two in the paper, with LPIPS and Heun steps; ours not measured yet.
Command: jaxdiff train configs/cifar10_edm.py; jaxdiff train configs/cifar10_consistency_distillation.py
"""

import dataclasses
from pathlib import Path

import cifar10
import cifar10_edm

from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.experiment import Experiment
from jaxdiff.training import OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = cifar10.with_process(
        "cifar10_consistency_distillation",
        PUBLISHED["consistency_distillation"],
        cifar10_edm.net(dropout=0.0),
        steps=2,
        optimizer=OptimizerConfig(name="adam", lr=4e-4, decay="constant", clip=0.0),
        train=TrainConfig(steps=800_000, batch_size=512, log_every=100, preview_every=10_000),
    )
    return dataclasses.replace(base, task=dataclasses.replace(base.task, teacher=Path("runs/cifar10_edm")))


def small() -> Experiment:
    base = cifar10.shrunk(config())
    task = dataclasses.replace(base.task, teacher=Path("runs/cifar10_edm-small"))
    return dataclasses.replace(base, task=task)
