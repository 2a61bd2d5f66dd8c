"""A WaveNet of vowels at 8000 samples a second, conditioned on the vowel, its pitch and its loudness.

Paper: van den Oord et al. 2016, arXiv 1609.03499: mean opinion score 4.21 for English speech at 16 kHz, 4.46 recorded.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/sound/wavenet.py
"""

import dataclasses

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.wavenet import WaveNetConfig
from jaxdiff.tasks import wavenet
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="wavenet",
        task=wavenet.Config(
            net=WaveNetConfig(width=24, skip=64, doublings=8, stacks=2), classes=5, hop=64, samples=2048
        ),
        data=DataConfig(name="synthetic", split="train", size=1),
        held_out="test",
        ema=0.99,
        optimizer=OptimizerConfig(name="adam", lr=2e-3, warmup=20),
        train=TrainConfig(steps=2000, batch_size=4, log_every=20, preview_every=500),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    base = config()
    task = dataclasses.replace(
        base.task, net=WaveNetConfig(width=4, skip=4, doublings=2, stacks=1), samples=256, levels=8, previews=2
    )
    return dataclasses.replace(
        base,
        name="wavenet-small",
        task=task,
        held_out_batches=1,
        optimizer=dataclasses.replace(base.optimizer, warmup=0),
        train=dataclasses.replace(base.train, steps=6, batch_size=8, log_every=1, preview_every=3),
        checkpoint=dataclasses.replace(base.checkpoint, every=3),
    )
