"""Multinomial diffusion of grey emoji, 16x16, of 256 levels that turn to any: the uniform chain, trained on its bound.

Paper: Hoogeboom et al. 2021, arXiv 2102.05379, section 4; uniform D3PM has 5.08 bits/dim on CIFAR-10 (Austin et al.
2021, arXiv 2107.03006, table 2).
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/families/multinomial.py
"""

import dataclasses

from d3pm import config as d3pm
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig


def config() -> Experiment:
    base = d3pm()
    net = dataclasses.replace(base.task.net, out_channels=256)
    task = dataclasses.replace(base.task, net=net, grey=True, levels=256, chain="uniform", steps=50, auxiliary=0.0)
    return dataclasses.replace(base, name="multinomial", task=task, data=dataclasses.replace(base.data, size=16))


def small() -> Experiment:
    net = UNetConfig(
        channels=(4,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=2,
        out_channels=3,
    )  # fmt: skip
    return shrunk(config(), net=net, levels=3, steps=3)
