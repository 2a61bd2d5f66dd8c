"""DALL-E at the paper's size: 12 billion parameters over 256 text tokens and 32x32 codes of configs/dalle_dvae.py.

Paper: Ramesh et al. 2021, arXiv 2102.12092, appendix B: 64 layers of 62 heads of 64, Adam 4.5e-4, b2 0.96, weight
decay 4.5e-2, 430,000 updates of 1024 pictures, on 1024 V100. It leaves out no captions and drops merges of byte pairs.
Hardware: the paper's, or as many chips. Time and result: not measured yet. Data: a folder of pictures with captions.
Command: jaxdiff train configs/dalle.py --data.name FOLDER --mesh.fsdp 64, after configs/dalle_dvae.py
"""

import dataclasses

import dalle_dvae
import openmoji_dalle

from jaxdiff.experiment import Experiment
from jaxdiff.models.text_image_transformer import TextImageTransformerConfig
from jaxdiff.tasks import text_to_tokens
from jaxdiff.tasks.text_to_tokens import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return dataclasses.replace(
        dalle_dvae.config(),
        name="dalle",
        task=text_to_tokens.Config(
            net=TextImageTransformerConfig(width=3968, layers=64, heads=62, remat="blocks", dtype="bfloat16"),
            autoencoder="runs/dalle_dvae",
            length=256,
            vocabulary=16_384,
            preview=PreviewConfig(prompts=openmoji_dalle.PROMPTS),
        ),
        optimizer=OptimizerConfig(name="adamw", lr=4.5e-4, warmup=5000, b1=0.9, b2=0.96, weight_decay=0.045, clip=4.0),
        train=TrainConfig(steps=430_000, batch_size=1024, log_every=100, preview_every=10_000),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    base = openmoji_dalle.small()
    net = dataclasses.replace(base.task.net, remat="blocks")
    return dataclasses.replace(base, name="dalle-small", task=dataclasses.replace(base.task, net=net))
