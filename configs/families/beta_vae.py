"""A beta-VAE of squares and discs whose factors are known, 16x16, to see whether its latents tell them apart.

Paper: Higgins et al. 2017 (beta-VAE), ICLR: score 99.23 % on dSprites with beta 4, of the plain VAE 61.58 %; capacity
as Burgess et al. 2018, arXiv 1804.03599. `python scripts/vae_latents.py runs/beta_vae` measures.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/families/beta_vae.py
"""

import dataclasses

from pixelcnn import shrunk
from vae import config as vae

from jaxdiff.experiment import Experiment
from jaxdiff.models.autoencoder_kl import AutoencoderConfig


def config() -> Experiment:
    base = vae()
    net = AutoencoderConfig(
        channels=(16, 32, 32, 32, 64),
        layers=1,
        latent_channels=8,
        groups=8,
        mid_attention=False,
        in_channels=1,
        out_channels=2,
    )
    return dataclasses.replace(
        base,
        name="beta_vae",
        task=dataclasses.replace(base.task, net=net, grey=True, beta=4.0),
        data=dataclasses.replace(base.data, name="shapes", size=16, subset="all"),
    )


def small() -> Experiment:
    base = config()
    return shrunk(base, net=dataclasses.replace(base.task.net, channels=(4, 4), groups=2), measured_draws=2)
