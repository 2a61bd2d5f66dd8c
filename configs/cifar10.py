"""DDPM on CIFAR-10, unconditional: the 35.7M-parameter network.

Paper: Ho et al. 2020, arXiv 2006.11239, appendix B: linear schedule, eps prediction, Adam 2e-4, 800k steps of 128, EMA
0.9999, dropout 0.1, random flips.
Hardware: 8 accelerators. Time: not measured yet. Result: FID 3.17 in the paper; not measured here.
Command: jaxdiff train configs/cifar10.py
"""

import dataclasses

import quickstart

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import cifar10
from jaxdiff.tasks import picture
from jaxdiff.tasks.picture import ProcessConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="cifar10",
        task=picture.Config(
            process=ProcessConfig(schedule="linear", prediction="eps", weight="simple"),
            net=cifar10(),
            condition="none",
            drop=0.0,
            preview=picture.PreviewConfig(prompts=("",) * 16, sampler="ddim", steps=100, guidance=1.0),
        ),
        data=DataConfig(name="cifar10", size=32, flip=True),
        optimizer=OptimizerConfig(name="adam", lr=2e-4, warmup=5000, decay="constant"),
        train=TrainConfig(steps=800_000, batch_size=128, log_every=100, preview_every=10_000),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    """On emoji, which need no download."""
    base = quickstart.shrunk(config())
    return dataclasses.replace(
        base, data=dataclasses.replace(base.data, name="openmoji", split="all", subset="quickstart")
    )
