"""A RealNVP of emoji, 32x32: affine couplings of checkerboards and channels, at several scales.

Paper: Dinh et al. 2017, arXiv 1605.08803: 3.49 bits/dim on CIFAR-10.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/realnvp.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.flow import FlowConfig
from jaxdiff.tasks import flow


def config() -> Experiment:
    task = flow.Config(net=FlowConfig(family="realnvp", scales=2, steps=3, width=64, norm="batch"))
    return dataclasses.replace(pixelcnn(), name="realnvp", task=task)


def small() -> Experiment:
    return shrunk(config(), net=FlowConfig(family="realnvp", scales=1, steps=1, width=8, norm="batch"))
