"""A diffusion prior of emoji: from a name to the embedding that configs/openmoji_clip.py has of such a picture.

Paper: Ramesh et al. 2022 (unCLIP), arXiv 2204.06125, section 2.2, in small.
Hardware: one CPU core. Time: 3 minutes. Result: the least held-out loss is 0.930, at step 500; docs/unclip.md.
Command: jaxdiff train configs/openmoji_clip.py && jaxdiff train configs/openmoji_prior.py
"""

import dataclasses
from pathlib import Path

import openmoji_clip

from jaxdiff.experiment import Experiment
from jaxdiff.models.prior import PriorConfig
from jaxdiff.tasks import prior
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = openmoji_clip.config()
    net = PriorConfig(embed=128, text=128, vector=128, length=16, layers=4, heads=4, head_dim=32)
    return dataclasses.replace(
        base,
        name="openmoji_prior",
        task=prior.Config(net=net, clip=Path("runs/openmoji_clip")),
        ema=0.998,
        optimizer=OptimizerConfig(lr=1e-3, warmup=100, b2=0.96, weight_decay=0.06),
        train=TrainConfig(steps=800, batch_size=64, log_every=25),
        checkpoint=CheckpointConfig(every=500, best="ema_loss"),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """The same kind of run in seconds, on a small run of openmoji_clip."""
    made, net = openmoji_clip.small(), PriorConfig(embed=8, text=8, vector=8, length=8, layers=1, heads=2, head_dim=4)
    task = dataclasses.replace(base.task, net=net, clip=Path("runs/openmoji_clip-small"))
    return dataclasses.replace(made, name=f"{base.name}-small", task=task)
