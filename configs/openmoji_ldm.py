"""Text to picture in latents: every emoji without skin tones and flags, 64x64, as 16x16x4 of a KL autoencoder (f=4).

Paper: Rombach et al. 2022, arXiv 2112.10752, section 4.3 (text transformer trained with the U-Net, cross-attention).
Hardware: 2 CPU cores. Time and result: not measured yet in full; 1400 steps of 16 on the quickstart's emoji give
pictures that mostly follow their prompts (docs/latents.md).
Command: jaxdiff train configs/openmoji_kl.py && jaxdiff latents configs/openmoji_ldm.py --autoencoder runs/openmoji_kl
  --out runs/openmoji_kl-latents && jaxdiff train configs/openmoji_ldm.py --data.name runs/openmoji_kl-latents
"""

import dataclasses

import quickstart

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import latent
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config(name: str = "openmoji_ldm") -> Experiment:
    return Experiment(
        name=name,
        task=latent.Config(
            process=ProcessConfig(schedule="cosine", prediction="v", clip=None),
            net=UNetConfig(
                out_channels=4,
                channels=(64, 128, 192),
                layers=1,
                attention=("none", "cross", "cross"),
                mid_attention="cross",
                heads=(2, 4, 6),
                depth=(1, 1, 1),
                groups=8,
                pooled=True,
            ),
            text=TextConfig(vocabulary=2048, length=32, width=192, layers=4, heads=6),
            vocabulary=2048,
            preview=PreviewConfig(prompts=quickstart.PROMPTS, steps=20, guidance=3.0),
        ),
        data=DataConfig(name="openmoji", size=64, split="train", subset="plain", articles=True),
        held_out="test",
        ema=0.999,
        optimizer=OptimizerConfig(lr=1e-3, warmup=200, b2=0.99),
        train=TrainConfig(steps=10_000, batch_size=32, preview_every=1000),
        checkpoint=CheckpointConfig(every=1000, best="ema_loss"),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """The same kind of run in seconds, in the 8x8 latents of a first stage's `small`: give it as --task.autoencoder."""
    made = quickstart.shrunk(base)
    return dataclasses.replace(
        made, task=dataclasses.replace(made.task, net=dataclasses.replace(made.task.net, patch=1)), held_out_batches=1
    )
