"""DDPM on CIFAR-10, unconditional: the 35.7M-parameter network.

Paper: Ho et al. 2020, arXiv 2006.11239, appendix B: linear schedule, eps prediction, Adam 2e-4, 800k steps of 128, EMA
0.9999, dropout 0.1, random flips; FID 3.17 there.
Hardware: 8 accelerators. Command: jaxdiff train configs/cifar10.py
"""

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment, PreviewConfig
from jaxdiff.models.unet import cifar10
from jaxdiff.tasks.picture import ProcessConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="cifar10",
        data=DataConfig(name="cifar10", size=32, flip=True),
        process=ProcessConfig(schedule="linear", prediction="eps", weight="simple", condition="none", drop=0.0),
        unet=cifar10(),
        optimizer=OptimizerConfig(name="adam", lr=2e-4, warmup=5000, decay="constant"),
        train=TrainConfig(steps=800_000, batch_size=128, log_every=100, preview_every=10_000),
        checkpoint=CheckpointConfig(every=5000),
        preview=PreviewConfig(prompts=("",) * 16, sampler="ddim", steps=100, guidance=1.0),
    )
