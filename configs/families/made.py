"""A MADE of grey emoji of four levels, 16x16: dense layers, whose bits/dim are exact.

Paper: Germain et al. 2015, arXiv 1502.03509: 88.04 nats on binarised MNIST with one mask and two layers of 8000 units.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/made.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.made import MadeConfig
from jaxdiff.tasks import autoregressive


def config() -> Experiment:
    base = pixelcnn()
    return dataclasses.replace(
        base,
        name="made",
        task=autoregressive.Config(net=MadeConfig(hidden=(1024,)), grey=True, levels=4),
        data=dataclasses.replace(base.data, size=16),
    )


def small() -> Experiment:
    return shrunk(config(), net=MadeConfig(hidden=(16,)))
