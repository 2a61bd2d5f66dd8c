"""A transformer over the pixels of grey emoji of eight levels, 16x16, which keeps keys and values while it draws.

Paper: Parmar et al. 2018, arXiv 1802.05751: 2.90 bits/dim on CIFAR-10 in colour and 256 levels, with local attention.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/families/image_transformer.py
"""

import dataclasses

from made import config as made
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.image_transformer import ImageTransformerConfig


def config() -> Experiment:
    base = made()
    task = dataclasses.replace(base.task, net=ImageTransformerConfig(width=64, layers=3, heads=4), levels=8)
    optimizer = dataclasses.replace(base.optimizer, lr=1e-3)
    return dataclasses.replace(base, name="image_transformer", task=task, optimizer=optimizer)


def small() -> Experiment:
    return shrunk(config(), net=ImageTransformerConfig(width=8, layers=1, heads=2))
