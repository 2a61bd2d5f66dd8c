"""A PixelRNN of emoji, 32x32: Row LSTMs down the picture, whose bits/dim are exact.

Paper: van den Oord et al. 2016, arXiv 1601.06759: 3.00 bits/dim on CIFAR-10 with the Diagonal BiLSTM of 12 layers, 3.07
with Row LSTMs.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/families/pixelrnn.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.pixelrnn import PixelRNNConfig
from jaxdiff.tasks import autoregressive


def config() -> Experiment:
    task = autoregressive.Config(net=PixelRNNConfig(width=48, layers=2, reach=2, head=96))
    return dataclasses.replace(pixelcnn(), name="pixelrnn", task=task)


def small() -> Experiment:
    return shrunk(config(), net=PixelRNNConfig(width=6, layers=1, reach=1, head=6))
