"""CLIP of emoji without skin tones and flags, 32x32, and their names: what a prior and a decoder of emoji stand on.

Paper: Radford et al. 2021, arXiv 2103.00020, section 2, in small; evaluation reads it as --clip runs/openmoji_clip.
Hardware: one CPU core. Time: 10 minutes. Result: held-out R-precision of 0.23 among 100 captions (chance: 0.01), and of
0.19 with --seed 1.
Command: jaxdiff train configs/openmoji_clip.py
"""

import dataclasses

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.image_clip import ClipImageConfig
from jaxdiff.models.text_clip import ClipTextConfig
from jaxdiff.tasks import clip
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="openmoji_clip",
        task=clip.Config(
            image=ClipImageConfig(size=32, patch=4, width=128, mlp=512, layers=3, heads=4, projection=128),
            text=ClipTextConfig(
                vocabulary=1024, length=16, width=128, mlp=512, layers=3, heads=4, projection=128, end=None
            ),
            vocabulary=1024,
        ),
        data=DataConfig(name="openmoji", size=32, split="train", subset="plain", articles=True),
        held_out="test",
        held_out_batches=1,
        ema=0.99,
        optimizer=OptimizerConfig(lr=1e-3, warmup=100, b2=0.98, eps=1e-6, weight_decay=0.2),
        train=TrainConfig(steps=600, batch_size=128, log_every=10),
        checkpoint=CheckpointConfig(every=100),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """The same kind of run in seconds."""
    image = ClipImageConfig(size=16, patch=8, width=8, mlp=16, layers=1, heads=2, projection=8)
    text = ClipTextConfig(vocabulary=600, length=8, width=8, mlp=16, layers=1, heads=2, projection=8, end=None)
    return dataclasses.replace(
        base,
        name=f"{base.name}-small",
        task=clip.Config(image=image, text=text, vocabulary=600),
        data=DataConfig(name="openmoji", size=16, split="train", subset="plain"),
        held_out="test",
        held_out_batches=1,
        optimizer=dataclasses.replace(base.optimizer, warmup=0),
        train=dataclasses.replace(base.train, steps=6, batch_size=16, log_every=1),
        checkpoint=dataclasses.replace(base.checkpoint, every=3, best=""),
    )
