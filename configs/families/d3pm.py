"""D3PM of emoji, 32x32, of eight levels a channel: discretised Gaussian steps, hybrid loss.

Paper: Austin et al. 2021, arXiv 2107.03006: 3.44 bits/dim and FID 7.34 on CIFAR-10 of 256 levels, with 1000 steps.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/d3pm.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import d3pm


def config() -> Experiment:
    net = UNetConfig(
        channels=(32, 64, 64),
        layers=1,
        attention=("none", "none", "self"),
        mid_attention="self",
        heads=(2, 2, 2),
        depth=(1, 1, 1),
        groups=8,
        out_channels=24,
    )
    return dataclasses.replace(pixelcnn(), name="d3pm", task=d3pm.Config(net=net, auxiliary=0.01))


def small() -> Experiment:
    net = UNetConfig(
        channels=(4,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=2,
        out_channels=6,
    )  # fmt: skip
    return shrunk(config(), net=net, levels=2, steps=3, chain="absorbing")
