"""A discrete VAE of emoji, 32x32 to 8x8 codes of 512: the first stage of configs/openmoji_dalle.py.

Paper: Ramesh et al. 2021 (DALL-E), arXiv 2102.12092, appendix A, with a smaller network, a fourth of its steps in each
direction (f=4) and so a fourth of its weight of the KL a code. That weight is whole after 50 steps: where it took 1000,
the logits had saturated before, and each picture had the same codes (the paper's is whole after a 600th of its steps).
Hardware: one CPU core. Time: 10 minutes. Result: 15.0 dB on held-out emoji, blurred, with a perplexity of 20 codes.
Command: jaxdiff train configs/openmoji_dvae.py
"""

import dataclasses

import openmoji_kl

from jaxdiff.experiment import Experiment
from jaxdiff.models.autoencoder_dvae import DVAEConfig
from jaxdiff.tasks import dvae
from jaxdiff.training import OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = openmoji_kl.config()
    return dataclasses.replace(
        base,
        name="openmoji_dvae",
        task=dvae.Config(
            net=DVAEConfig(channels=(64, 128, 128), layers=1, codes=512, embedding=128),
            temperature_steps=1500,
            kl=1.65,
            kl_steps=50,
        ),
        data=dataclasses.replace(base.data, size=32),
        optimizer=OptimizerConfig(name="adamw", lr=1e-3, warmup=100, weight_decay=1e-4, b2=0.99),
        train=TrainConfig(steps=2500, batch_size=16, log_every=25, preview_every=500),
    )


def small() -> Experiment:
    base, whole = openmoji_kl.small(), config()
    net = DVAEConfig(channels=(8, 8), layers=1, codes=32, embedding=8)
    task = dataclasses.replace(whole.task, net=net, temperature_steps=4, kl_steps=3, previews=2)
    return dataclasses.replace(base, name=f"{whole.name}-small", task=task)
