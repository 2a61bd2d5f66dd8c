"""Flow matching on CIFAR-10, along straight lines from noise to data.

Paper: Lipman et al. 2023, arXiv 2210.02747, table 3: channels 256, two residual blocks a level, four heads, no dropout,
Adam 5e-4, 391k steps of 256, 45k of them warm-up. Its polynomial decay is a cosine here.
Hardware: 2 accelerators, as in the paper. Time: not measured yet.
Result: FID 6.35 and 2.99 bits/dim in the paper, at 142 network calls; ours not measured yet.
Command: jaxdiff train configs/cifar10_flow_matching.py
"""

import cifar10

from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.training import OptimizerConfig, TrainConfig


def config() -> Experiment:
    return cifar10.with_process(
        "cifar10_flow_matching",
        PUBLISHED["flow_matching"],
        UNetConfig(channels=(256, 512, 512, 512), heads=(4, 4, 4, 4)),
        optimizer=OptimizerConfig(name="adam", lr=5e-4, warmup=45_000, decay="cosine"),
        train=TrainConfig(steps=391_000, batch_size=256, log_every=100, preview_every=10_000),
    )


def small() -> Experiment:
    return cifar10.shrunk(config())
