"""Diffusion of CIFAR-10 that predicts v on the cosine schedule: the teacher of cifar10_progressive.py.

Paper: Salimans & Ho 2022, arXiv 2202.00512: the truncated SNR weight. The network and the other numbers are those of
cifar10.py.
Hardware: 8 accelerators. Time: not measured yet.
Result: not measured yet.
Command: jaxdiff train configs/cifar10_cosine_v.py
"""

import cifar10

from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models import unet


def config() -> Experiment:
    process = ProcessConfig(prediction="v", weight="truncated_snr")
    return cifar10.with_process("cifar10_cosine_v", process, unet.cifar10())


def small() -> Experiment:
    return cifar10.shrunk(config())
