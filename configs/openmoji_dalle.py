"""DALL-E in small: a transformer over captions of emoji and then the 8x8 codes of configs/openmoji_dvae.py.

Paper: Ramesh et al. 2021, arXiv 2102.12092, section 2.2 and appendix B, with a smaller network; a tenth of the captions
is left out, for guidance. Longer training learns the emoji by heart.
Hardware: one CPU core. Time: 6 minutes. Result: 2.78 nats a code on held-out emoji; docs/dalle.md.
Command: jaxdiff train configs/openmoji_dalle.py, after configs/openmoji_dvae.py
"""

import dataclasses

import openmoji_dvae

from jaxdiff.experiment import Experiment
from jaxdiff.models.text_image_transformer import TextImageTransformerConfig
from jaxdiff.tasks import text_to_tokens
from jaxdiff.tasks.text_to_tokens import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig

PROMPTS = ("red heart", "cat face", "house", "red apple", "yellow flower", "blue car", "fish", "tree")


def config() -> Experiment:
    base = openmoji_dvae.config()
    return dataclasses.replace(
        base,
        name="openmoji_dalle",
        task=text_to_tokens.Config(
            net=TextImageTransformerConfig(width=192, layers=6, heads=6, attention=("row", "column", "row", "full")),
            autoencoder="runs/openmoji_dvae",
            length=24,
            preview=PreviewConfig(prompts=PROMPTS, top_k=64),
        ),
        data=dataclasses.replace(base.data, flip=True),
        ema=0.99,
        optimizer=OptimizerConfig(name="adamw", lr=1e-3, warmup=100, b2=0.96, weight_decay=0.045),
        train=TrainConfig(steps=900, batch_size=16, log_every=25, preview_every=300),
        checkpoint=CheckpointConfig(every=150),
    )


def small() -> Experiment:
    base, whole = openmoji_dvae.small(), config()
    net = TextImageTransformerConfig(width=8, layers=2, heads=2, attention=("row",), window=3)
    task = dataclasses.replace(
        whole.task, net=net, length=8, vocabulary=300, preview=PreviewConfig(prompts=PROMPTS[:2], top_k=8)
    )
    return dataclasses.replace(base, name=f"{whole.name}-small", task=task, ema=0.9)
