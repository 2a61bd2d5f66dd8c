"""A NICE of emoji, 32x32: additive couplings, and logistic noise.

Paper: Dinh et al. 2015, arXiv 1410.8516: 5371.78 nats of log-likelihood on CIFAR-10, dequantised.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/nice.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.flow import FlowConfig
from jaxdiff.tasks import flow


def config() -> Experiment:
    task = flow.Config(net=FlowConfig(family="nice", steps=6, width=64), prior="logistic")
    return dataclasses.replace(pixelcnn(), name="nice", task=task)


def small() -> Experiment:
    return shrunk(config(), net=FlowConfig(family="nice", scales=1, steps=1, width=8, bins=3))
