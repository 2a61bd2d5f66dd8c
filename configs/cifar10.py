"""DDPM on CIFAR-10, unconditional: the 35.7M-parameter network, trained at the 1000 steps it is sampled at.

Paper: Ho et al. 2020, arXiv 2006.11239, appendix B and its released code: linear schedule, eps prediction, variances
beta, Adam 2e-4 after 5000 steps of warm-up, gradients clipped to 1, 800k steps of 128, EMA 0.9999, dropout 0.1, flips.
Hardware: 8 accelerators; TPU v3-8 in the paper. Time: 10.6 hours in the paper; ours not measured yet.
Result: FID 3.17 in the paper; ours not measured yet.
Command: jaxdiff train configs/cifar10.py
"""

import dataclasses
from typing import Any

import quickstart

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig, cifar10
from jaxdiff.tasks import picture
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="cifar10",
        task=picture.Config(
            process=PUBLISHED["ddpm"],
            net=cifar10(),
            condition="none",
            drop=0.0,
            preview=PreviewConfig(prompts=("",) * 16, sampler="ddim", steps=100, guidance=1.0),
        ),
        data=DataConfig(name="cifar10", size=32, flip=True),
        optimizer=OptimizerConfig(name="adam", lr=2e-4, warmup=5000, decay="constant"),
        train=TrainConfig(steps=800_000, batch_size=128, log_every=100, preview_every=10_000),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    return shrunk(config())


def with_process(name: str, process: ProcessConfig, net: UNetConfig, steps: int = 100, **changes: Any) -> Experiment:
    """Changes the process and the network, and lets previews have the process's own sampler; for other files."""
    base = config()
    preview = dataclasses.replace(base.task.preview, sampler=None, steps=steps)
    task = dataclasses.replace(base.task, process=process, net=net, preview=preview)
    return dataclasses.replace(base, name=name, task=task, **changes)


def shrunk(base: Experiment) -> Experiment:
    """A small form of such a run on emoji, which need no download."""
    small = quickstart.shrunk(base)
    return dataclasses.replace(
        small, data=dataclasses.replace(small.data, name="openmoji", split="all", subset="quickstart")
    )
