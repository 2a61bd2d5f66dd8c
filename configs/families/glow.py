"""A Glow of emoji, 32x32: ActNorm, 1x1 convolutions and affine couplings.

Paper: Kingma and Dhariwal 2018, arXiv 1807.03039: 3.35 bits/dim on CIFAR-10, with 3 scales of 32 steps, 512 units.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/glow.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.flow import FlowConfig
from jaxdiff.tasks import flow


def config() -> Experiment:
    task = flow.Config(net=FlowConfig(family="glow", scales=3, steps=6, width=64))
    return dataclasses.replace(pixelcnn(), name="glow", task=task)


def small() -> Experiment:
    return shrunk(config(), net=FlowConfig(family="glow", scales=1, steps=1, width=8))
