"""A masked autoregressive flow of emoji, 32x32, which measures in one pass and draws in one a number.

Paper: Papamakarios et al. 2017, arXiv 1705.07057: 3.02 bits/dim on CIFAR-10 with 10 layers (dequantised, flipped).
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/families/maf.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.flow import FlowConfig
from jaxdiff.tasks import flow


def config() -> Experiment:
    task = flow.Config(net=FlowConfig(family="maf", steps=3, width=256))
    return dataclasses.replace(pixelcnn(), name="maf", task=task)


def small() -> Experiment:
    return shrunk(config(), net=FlowConfig(family="maf", scales=1, steps=1, width=8, bins=3))
