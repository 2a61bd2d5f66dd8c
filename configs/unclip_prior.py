"""unCLIP's diffusion prior, on a CLIP whose directory is given.

Paper: Ramesh et al. 2022, arXiv 2204.06125, appendix C: 24 blocks of width 2048, x0 prediction on a cosine schedule,
batches of 4096, AdamW 1.1e-4 with b2 0.96 and weight decay 0.06, 600k steps, EMA 0.9999, a tenth without text.
Widths are those of CLIP ViT-L/14, to be set to those of the CLIP that is given.
Hardware: 256 accelerators. Time and result: not measured yet.
Command: jaxdiff train configs/unclip_prior.py --task.clip DIR --data.name DIR --mesh.fsdp 8
"""

import openmoji_prior

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.prior import PriorConfig
from jaxdiff.tasks import prior
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="unclip_prior",
        task=prior.Config(net=PriorConfig(layers=24, heads=32, head_dim=64, dtype="bfloat16")),
        data=DataConfig(name="data/pairs", size=224),
        optimizer=OptimizerConfig(lr=1.1e-4, warmup=1000, b2=0.96, weight_decay=0.06, decay="constant"),
        train=TrainConfig(steps=600_000, batch_size=4096, log_every=100),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    return openmoji_prior.shrunk(config())
