"""DDPM++ on CIFAR-10 with the continuous variance-preserving SDE.

Paper: Song et al. 2021, arXiv 2011.13456, appendix H, and its released code: beta from 0.1 to 20, Adam 2e-4 after 5000
steps of warm-up, gradients clipped to 1, 950k steps of 128, EMA 0.9999, dropout 0.1; four residual blocks a level that
also change the resolution, their sums divided by sqrt(2).
Hardware: 8 accelerators. Time: not measured yet.
Result: FID 2.55 in the paper (DDPM++ cont., VP); ours not measured yet.
Command: jaxdiff train configs/cifar10_ddpmpp_vp.py
"""

import math

import cifar10

from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.training import TrainConfig


def config() -> Experiment:
    return cifar10.with_process(
        "cifar10_ddpmpp_vp",
        PUBLISHED["score_sde_vp"],
        net(),
        train=TrainConfig(steps=950_000, batch_size=128, log_every=100, preview_every=10_000),
    )


def net() -> UNetConfig:
    """DDPM++ of the paper, less deep."""
    return UNetConfig(layers=4, adm_resample=True, rescale=math.sqrt(2), eps=1e-6, dropout=0.1)


def small() -> Experiment:
    return cifar10.shrunk(config())
