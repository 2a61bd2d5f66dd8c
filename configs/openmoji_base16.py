"""The first stage of a cascade of emoji: every emoji without skin tones and flags, 16x16, from its name.

Paper: Ho et al. 2021 (CDM: cascades), arXiv 2106.15282; text as Nichol et al. 2021 (GLIDE), arXiv 2112.10741.
Hardware: one CPU core. Time: 21 minutes. Result: with the stages after it, docs/cascade.md.
Command: jaxdiff train configs/openmoji_base16.py
"""

import dataclasses

import quickstart

from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = quickstart.config()
    net = dataclasses.replace(base.task.net, channels=(32, 64, 96), heads=(1, 2, 3), patch=1)
    text = TextConfig(vocabulary=1024, length=16, width=96, layers=2, heads=3)
    return dataclasses.replace(
        base,
        name="openmoji_base16",
        task=dataclasses.replace(base.task, net=net, text=text, vocabulary=1024),
        data=dataclasses.replace(base.data, size=16, split="train", subset="plain"),
        held_out="test",
        ema=0.998,
        optimizer=OptimizerConfig(lr=1e-3, warmup=100, b2=0.99),
        train=TrainConfig(steps=3000, batch_size=32, log_every=25, preview_every=1000),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    return quickstart.shrunk(config())
