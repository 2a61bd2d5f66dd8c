"""A Gated PixelCNN over the 16x16 codes of emoji of 64x64, which makes of configs/openmoji_vq.py a model that draws.

Paper: van den Oord et al. 2017, arXiv 1711.00937, section 4.1 (figures of samples, and no likelihood of pictures).
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/openmoji_vq_prior.py
"""

import dataclasses

import openmoji_vq

from jaxdiff.experiment import Experiment
from jaxdiff.models.pixelcnn import PixelCNNConfig
from jaxdiff.tasks import code_prior
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = openmoji_vq.config()
    net = PixelCNNConfig(width=48, layers=5, reach=2, head=96)
    return dataclasses.replace(
        base,
        name="openmoji_vq_prior",
        task=code_prior.Config(net=net, vq=base.task.net, autoencoder="runs/openmoji_vq"),
        ema=0.99,
        optimizer=OptimizerConfig(name="adam", lr=2e-3, warmup=50),
        train=TrainConfig(steps=2000, batch_size=16, log_every=25, preview_every=500),
        checkpoint=CheckpointConfig(every=250),
    )


def small() -> Experiment:
    base, whole = openmoji_vq.small(), config()
    task = dataclasses.replace(
        whole.task, net=PixelCNNConfig(width=6, layers=1, reach=1, head=6), vq=base.task.net, previews=2
    )
    return dataclasses.replace(base, name=f"{whole.name}-small", task=task, ema=0.9)
