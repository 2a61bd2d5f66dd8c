"""The continuous variance-exploding SDE on CIFAR-10, in the place of NCSN++.

Paper: Song et al. 2021, arXiv 2011.13456, appendix H, and its released code: noise from 0.01 to 50 on pictures in [0,
1], which are 0.02 to 100 in [-1, 1]; Adam 2e-4, 950k steps of 128, EMA 0.999, dropout 0.1. Its network divides its
output by sigma, so that what it outputs before is eps, as here. NCSN++ has besides this network FIR resampling,
a pyramid of inputs and Fourier features of time, which are not ours.
Hardware: 8 accelerators. Time: not measured yet.
Result: FID 2.38 in the paper with NCSN++ and the predictor-corrector sampler; ours not measured yet.
Command: jaxdiff train configs/cifar10_ncsnpp_ve.py
"""

import cifar10
import cifar10_ddpmpp_vp

from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.experiment import Experiment
from jaxdiff.training import TrainConfig


def config() -> Experiment:
    return cifar10.with_process(
        "cifar10_ncsnpp_ve",
        ProcessConfig(schedule="ve", sigma_min=0.02, sigma_max=100.0),
        cifar10_ddpmpp_vp.net(),
        ema=0.999,
        train=TrainConfig(steps=950_000, batch_size=128, log_every=100, preview_every=10_000),
    )


def small() -> Experiment:
    return cifar10.shrunk(config())
