"""A Gated PixelCNN of emoji, 32x32, whose bits/dim are exact.

Paper: van den Oord et al. 2016, arXiv 1606.05328: 3.03 bits/dim on CIFAR-10, with 15 layers on 32 GPUs for 60 hours.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/pixelcnn.py
"""

import dataclasses

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.pixelcnn import PixelCNNConfig
from jaxdiff.tasks import autoregressive
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="pixelcnn",
        task=autoregressive.Config(net=PixelCNNConfig(width=48, layers=5, reach=2, head=96)),
        data=DataConfig(name="openmoji", size=32, split="train", subset="plain"),
        held_out="test",
        held_out_batches=16,
        ema=0.99,
        optimizer=OptimizerConfig(name="adam", lr=2e-3, warmup=50),
        train=TrainConfig(steps=1500, batch_size=16, log_every=25, preview_every=500),
        checkpoint=CheckpointConfig(every=250),
    )


def small() -> Experiment:
    return shrunk(config(), net=PixelCNNConfig(width=6, layers=2, reach=1, head=6))


def shrunk(base: Experiment, **task) -> Experiment:
    """The same kind of run as `base` in seconds: pictures of 8x8, six steps."""
    return dataclasses.replace(
        base,
        name=f"{base.name}-small",
        task=dataclasses.replace(base.task, **(({"previews": 2} if hasattr(base.task, "previews") else {}) | task)),
        data=dataclasses.replace(base.data, size=8),
        held_out_batches=1,
        optimizer=dataclasses.replace(base.optimizer, warmup=0),
        train=dataclasses.replace(base.train, steps=6, batch_size=8, log_every=1, preview_every=3),
        checkpoint=dataclasses.replace(base.checkpoint, every=3),
    )
