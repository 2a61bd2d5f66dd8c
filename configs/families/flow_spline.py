"""A flow of emoji, 32x32, whose couplings are splines, with a flow for dequantising.

Paper: Durkan et al. 2019, arXiv 1906.04032: 3.38 bits/dim on CIFAR-10; Ho et al. 2019, arXiv 1902.00275, dequantising.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/flow_spline.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.flow import FlowConfig
from jaxdiff.tasks import flow


def config() -> Experiment:
    task = flow.Config(net=FlowConfig(family="spline", scales=2, steps=3, width=64, bins=8), dequantise="variational")
    return dataclasses.replace(pixelcnn(), name="flow_spline", task=task)


def small() -> Experiment:
    return shrunk(config(), net=FlowConfig(family="spline", scales=1, steps=1, width=8, bins=3))
