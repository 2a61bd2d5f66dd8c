"""A variational diffusion model of CIFAR-10: the bound itself, with a learned schedule.

Paper: Kingma et al. 2021, arXiv 2107.00630, appendix B: AdamW 2e-4, weight decay 0.01, 10M steps of 128, EMA 0.9999.
Its network, 32 residual blocks without change of resolution and with Fourier features of the pixels, is not ours: this
is that of DDPM.
Hardware: 8 accelerators. Time: not measured yet.
Result: 2.65 bits/dim in the paper, with its network; ours not measured yet.
Command: jaxdiff train configs/cifar10_vdm.py
"""

import cifar10

from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.experiment import Experiment
from jaxdiff.models import unet
from jaxdiff.training import OptimizerConfig, TrainConfig


def config() -> Experiment:
    return cifar10.with_process(
        "cifar10_vdm",
        PUBLISHED["vdm"],
        unet.cifar10(),
        optimizer=OptimizerConfig(name="adamw", lr=2e-4, weight_decay=0.01, decay="constant"),
        train=TrainConfig(steps=10_000_000, batch_size=128, log_every=100, preview_every=10_000),
    )


def small() -> Experiment:
    return cifar10.shrunk(config())
