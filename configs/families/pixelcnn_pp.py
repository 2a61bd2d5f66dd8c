"""A Gated PixelCNN of emoji, 32x32, with PixelCNN++'s mixture of logistics for whole pixels.

Paper: Salimans et al. 2017, arXiv 1701.05517: 2.92 bits/dim on CIFAR-10, on 8 GPUs for 5 days; its U-shaped network is
not this one.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/pixelcnn_pp.py
"""

import dataclasses

from pixelcnn import config as plain
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.pixelcnn import PixelCNNConfig


def config() -> Experiment:
    base = plain()
    task = dataclasses.replace(base.task, values="logistic_mixture", mixtures=10)
    return dataclasses.replace(base, name="pixelcnn_pp", task=task)


def small() -> Experiment:
    return shrunk(config(), net=PixelCNNConfig(width=6, layers=2, reach=1, head=6))
