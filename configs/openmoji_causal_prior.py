"""An autoregressive prior of emoji: openmoji_prior.py's task, with embeddings said as 64 codes one after another.

Paper: Ramesh et al. 2022 (unCLIP), arXiv 2204.06125, section 2.2, in small: there 319 of 1024 components, 1024 parts.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/openmoji_clip.py && jaxdiff train configs/openmoji_causal_prior.py
"""

import dataclasses
from pathlib import Path

import openmoji_clip

from jaxdiff.experiment import Experiment
from jaxdiff.models.causal_prior import CausalPriorConfig
from jaxdiff.tasks import causal_prior
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = openmoji_clip.config()
    net = CausalPriorConfig(embed=128, text=128, length=16, kept=64, bins=64, width=192, layers=4, heads=4)
    return dataclasses.replace(
        base,
        name="openmoji_causal_prior",
        task=causal_prior.Config(net=net, clip=Path("runs/openmoji_clip")),
        ema=0.998,
        optimizer=OptimizerConfig(lr=1e-3, warmup=100, b2=0.96, weight_decay=0.06),
        train=TrainConfig(steps=3000, batch_size=64, log_every=25),
        checkpoint=CheckpointConfig(every=500, best="ema_loss"),
    )


def small() -> Experiment:
    base, whole = openmoji_clip.small(), config()
    net = CausalPriorConfig(embed=8, text=8, length=8, kept=4, bins=8, width=8, layers=1, heads=2)
    task = dataclasses.replace(whole.task, net=net, clip=Path("runs/openmoji_clip-small"))
    return dataclasses.replace(base, name=f"{whole.name}-small", task=task)
