"""Multinomial diffusion of the captions of emoji, letter by letter.

Paper: Hoogeboom et al. 2021, arXiv 2102.05379: 1.72 bits/character on text8, of 256 characters.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/text/text_multinomial.py
"""

import dataclasses

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.token_transformer import TokenTransformerConfig
from jaxdiff.tasks import text_diffusion
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="text_multinomial",
        task=text_diffusion.Config(net=TokenTransformerConfig(width=128, layers=3, heads=4), process="multinomial"),
        data=DataConfig(name="openmoji", size=1, split="train"),
        held_out="test",
        held_out_batches=8,
        ema=0.99,
        optimizer=OptimizerConfig(name="adam", lr=1e-3, warmup=50),
        train=TrainConfig(steps=2000, batch_size=64, log_every=50, preview_every=500),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    base = config()
    net = TokenTransformerConfig(width=8, layers=1, heads=2)
    return dataclasses.replace(
        base,
        name=f"{base.name}-small",
        task=dataclasses.replace(base.task, net=net, length=8, steps=4, previews=2),
        held_out_batches=1,
        optimizer=dataclasses.replace(base.optimizer, warmup=0),
        train=dataclasses.replace(base.train, steps=6, batch_size=8, log_every=1, preview_every=3),
        checkpoint=dataclasses.replace(base.checkpoint, every=3),
    )
