"""A discrete VAE of emoji, 32x32 to 8x8 codes of 512: the first stage of configs/openmoji_dalle.py.

Paper: Ramesh et al. 2021 (DALL-E), arXiv 2102.12092, appendix A, with a smaller network and a fourth of its steps in
each direction (f=4). Its schedules are for millions of steps of photographs; in thousands, on emoji, the codes
collapsed to a handful: the encoder learns to be certain before it learns to tell pictures apart, and white backgrounds
outweigh all else. So the temperature falls from 4, where the decoder sees mixtures of many codes; the weight of the KL
is whole after 50 steps; no pixel's scale is below 1/e; and the learning rate is thirty times the paper's.
Hardware: one CPU core. Time: 13 minutes. Result: 19.8 dB on held-out emoji, thin lines blurred; perplexity 208.
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
            temperature=4.0,
            temperature_steps=4000,
            kl=1.0,
            kl_steps=50,
            log_scale=-1.0,
        ),
        data=dataclasses.replace(base.data, size=32),
        optimizer=OptimizerConfig(name="adamw", lr=3e-3, warmup=100, weight_decay=1e-4, b2=0.99),
        train=TrainConfig(steps=5000, batch_size=16, log_every=25, preview_every=1000),
    )


def small() -> Experiment:
    base, whole = openmoji_kl.small(), config()
    net = DVAEConfig(channels=(8, 8), layers=1, codes=32, embedding=8)
    task = dataclasses.replace(whole.task, net=net, temperature_steps=4, kl_steps=3, previews=2)
    return dataclasses.replace(base, name=f"{whole.name}-small", task=task)
