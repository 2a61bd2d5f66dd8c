"""EDM on CIFAR-10, unconditional: the DDPM++ network as the paper retrains it.

Paper: Karras et al. 2022, arXiv 2206.00364, appendix F: three levels of 256, four residual blocks each, dropout 0.13,
Adam 1e-3 after a warm-up of 10M pictures, 200M pictures in batches of 512, an average of a half-life of 0.5M pictures.
Its augmentation other than flips is not ours.
Hardware: 8 accelerators. Time: not measured yet.
Result: FID 1.97 at 35 network calls in the paper, with its augmentation; ours not measured yet.
Command: jaxdiff train configs/cifar10_edm.py
"""

import math

import cifar10

from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.training import OptimizerConfig, TrainConfig


def config() -> Experiment:
    return cifar10.with_process(
        "cifar10_edm",
        PUBLISHED["edm"],
        net(),
        steps=18,
        ema=0.5 ** (512 / 500_000),
        optimizer=OptimizerConfig(name="adam", lr=1e-3, warmup=19_531, decay="constant", clip=0.0),
        train=TrainConfig(steps=390_625, batch_size=512, log_every=100, preview_every=10_000),
    )


def net(dropout: float = 0.13) -> UNetConfig:
    """DDPM++ of the paper."""
    return UNetConfig(
        channels=(256, 256, 256),
        layers=4,
        attention=("none", "self", "none"),
        heads=(1, 1, 1),
        depth=(1, 1, 1),
        adm_resample=True,
        rescale=math.sqrt(2),
        eps=1e-6,
        dropout=dropout,
    )


def small() -> Experiment:
    return cifar10.shrunk(config())
