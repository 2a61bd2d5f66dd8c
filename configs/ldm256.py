"""LDM-4 on CelebA-HQ at 256x256, unconditional: 64x64x3 latents of a VQ autoencoder with 8192 codes (f=4).

Paper: Rombach et al. 2022, arXiv 2112.10752, table 12: 274M parameters, batch 48, learning rate 9.6e-5, 410k steps,
1000 steps of noise with square roots of beta evenly spaced from 0.0015 to 0.0195; FID 5.11 in its table 1.
Hardware: 8 accelerators. Time and result: not measured yet.
Command: jaxdiff latents configs/ldm256.py --autoencoder DIR --out latents, then jaxdiff train configs/ldm256.py
  --data.name latents; DIR has the autoencoder: a run, or a directory of diffusers (CompVis/ldm-celebahq-256).
"""

import dataclasses

import openmoji_ldm

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import latent
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="ldm256",
        task=latent.Config(
            process=ProcessConfig(
                schedule="scaled_linear", beta_min=0.0015, beta_max=0.0195, prediction="eps", times="steps", clip=None
            ),
            net=UNetConfig(
                channels=(224, 448, 672, 896),
                attention=("none", "self", "self", "self"),
                heads=(7, 14, 21, 28),
            ),
            condition="none",
            drop=0.0,
            scale=1.0,
            preview=PreviewConfig(prompts=("",) * 16, sampler="ddim", steps=50, guidance=1.0),
        ),
        data=DataConfig(name="celeb_a_hq/256", size=256),
        optimizer=OptimizerConfig(lr=9.6e-5, warmup=1000, decay="constant"),
        train=TrainConfig(steps=410_000, batch_size=48, log_every=100, preview_every=5000),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    """On emoji, which need no download, and in latents of 4 channels, as those of openmoji_vq.py are."""
    base = openmoji_ldm.shrunk(config())
    return dataclasses.replace(
        base,
        task=dataclasses.replace(base.task, net=dataclasses.replace(base.task.net, out_channels=4)),
        data=dataclasses.replace(base.data, name="openmoji", split="all", subset="quickstart"),
    )
