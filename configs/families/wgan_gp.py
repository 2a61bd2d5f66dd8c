"""A Wasserstein GAN of emoji, 32x32: DCGAN's shape, a gradient penalty, and five steps of the critic for each.

Paper: Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1: inception score 7.86 on CIFAR-10 with residual networks.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/wgan_gp.py
"""

import dataclasses

from gan import config as gan
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.critic import CriticConfig
from jaxdiff.models.generator import GeneratorConfig


def config() -> Experiment:
    base = gan()
    task = dataclasses.replace(
        base.task,
        net=GeneratorConfig(width=32, halvings=3),
        critic=CriticConfig(width=32, halvings=3, spectral=False),
        game="wasserstein",
        penalty=10.0,
    )
    return dataclasses.replace(
        base, name="wgan_gp", task=task, optimizer=dataclasses.replace(base.optimizer, lr=1e-4, every=5)
    )


def small() -> Experiment:
    return shrunk(
        config(),
        net=GeneratorConfig(width=4, halvings=2, noise=4, groups=2),
        critic=CriticConfig(width=4, halvings=2, spectral=False),
    )
