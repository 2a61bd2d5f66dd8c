"""A variational autoencoder of emoji, 32x32, whose decoder gives a discretised logistic.

Paper: Kingma and Welling 2014, arXiv 1312.6114; the decoder as in Kingma et al. 2016, arXiv 1606.04934, whose deep one
has 3.11 bits/dim on CIFAR-10.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/vae.py
"""

import dataclasses

from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.experiment import Experiment
from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.tasks import vae


def config() -> Experiment:
    net = AutoencoderConfig(
        channels=(32, 64, 64, 64), layers=1, latent_channels=8, groups=8, mid_attention=False, out_channels=6
    )
    base = pixelcnn()
    return dataclasses.replace(
        base, name="vae", task=vae.Config(net=net), optimizer=dataclasses.replace(base.optimizer, lr=1e-3)
    )


def small() -> Experiment:
    base = config()
    return shrunk(base, net=dataclasses.replace(base.task.net, channels=(4, 4), groups=2), measured_draws=2)
