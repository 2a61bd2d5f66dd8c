"""A Riemannian score model of three bumps on the sphere, whose law is known.

Paper: De Bortoli et al. 2022, arXiv 2202.02763: on the sphere, of earthquakes and other places on earth.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/spaces/sphere.py
"""

import dataclasses

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.points import PointsConfig
from jaxdiff.tasks import surface
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return on("sphere")


def on(space) -> Experiment:
    """A run on one of the surfaces."""
    return Experiment(
        name=space,
        task=surface.Config(net=PointsConfig(), space=space),
        data=DataConfig(name="synthetic", split="train", size=1),
        held_out="test",
        ema=0.999,
        optimizer=OptimizerConfig(name="adam", lr=2e-3, warmup=100),
        train=TrainConfig(steps=5000, batch_size=256, log_every=250, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """The same kind of run in seconds."""
    net = PointsConfig(width=8, layers=1, waves=1)
    return dataclasses.replace(
        base,
        name=f"{base.name}-small",
        task=dataclasses.replace(base.task, net=net, steps=3, points=64),
        held_out_batches=1,
        optimizer=dataclasses.replace(base.optimizer, warmup=0),
        train=dataclasses.replace(base.train, steps=6, batch_size=8, log_every=1, preview_every=3),
        checkpoint=dataclasses.replace(base.checkpoint, every=3),
    )
