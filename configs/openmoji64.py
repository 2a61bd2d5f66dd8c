"""Every emoji without skin tones and flags at 64x64, in bfloat16.

Paper and data as in openmoji32.py.
Hardware: one accelerator. Time and result: not measured yet.
Command: jaxdiff train configs/openmoji64.py
"""

import dataclasses

import openmoji32
import quickstart

from jaxdiff.experiment import Experiment
from jaxdiff.training import TrainConfig


def config() -> Experiment:
    base = openmoji32.config()
    net = dataclasses.replace(
        base.task.net,
        channels=(96, 192, 288, 384),
        attention=("none", "cross", "cross", "cross"),
        heads=(3, 6, 9, 12),
        depth=(1, 1, 1, 1),
        dtype="bfloat16",
    )
    text = dataclasses.replace(base.task.text, dtype="bfloat16")
    return dataclasses.replace(
        base,
        name="openmoji64",
        task=dataclasses.replace(base.task, net=net, text=text),
        data=dataclasses.replace(base.data, size=64),
        train=TrainConfig(steps=50_000, batch_size=128, preview_every=2000),
    )


def small() -> Experiment:
    return quickstart.shrunk(config())
