"""The discrete VAE of DALL-E at the paper's size: 256x256 to 32x32 codes of 8192.

Paper: Ramesh et al. 2021, arXiv 2102.12092, appendix A.2; 3,000,000 updates of 512 images on 64 V100.
Hardware: the paper's, or as many chips. Time and result: not measured yet. Data: a folder of pictures.
Command: jaxdiff train configs/dalle_dvae.py --data.name FOLDER
"""

import dataclasses

import openmoji_dvae

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.tasks import dvae
from jaxdiff.training import OptimizerConfig, TrainConfig


def config() -> Experiment:
    return dataclasses.replace(
        openmoji_dvae.config(),
        name="dalle_dvae",
        task=dvae.Config(),
        data=DataConfig(name="openmoji", size=256, split="train"),
        ema=0.999,
        optimizer=OptimizerConfig(name="adamw", lr=1e-4, b1=0.9, b2=0.999, weight_decay=1e-4, end_lr=1.25e-6),
        train=TrainConfig(steps=3_000_000, batch_size=512, log_every=100, preview_every=10_000),
    )


def small() -> Experiment:
    return dataclasses.replace(openmoji_dvae.small(), name="dalle_dvae-small")
