"""Text to picture at 512x512 from nothing, with the networks of Stable Diffusion 1.5: U-Net of 860M parameters, latents
of 64x64x4 (f=8), captions read by a frozen CLIP ViT-L/14.

Paper: Rombach et al. 2022, arXiv 2112.10752, and the model card of Stable Diffusion 1: batch 2048, learning rate 1e-4
after 10,000 steps, captions left out of 10%, 1000 steps of noise from 0.00085 to 0.012.
Hardware: 32 x 8 A100 in the model card. Time and result: not measured here.
Command: jaxdiff latents configs/sd15.py --data.name PICTURES --autoencoder DIR --text-encoder DIR --out latents, then
  jaxdiff train configs/sd15.py --data.name latents --mesh.fsdp 8; DIR is a directory of Stable Diffusion 1.5.
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
        name="sd15",
        task=latent.Config(
            process=ProcessConfig(schedule="scaled_linear", prediction="eps", times="steps", clip=None),
            net=UNetConfig(
                out_channels=4,
                channels=(320, 640, 1280, 1280),
                attention=("cross", "cross", "cross", "none"),
                mid_attention="cross",
                heads=(8, 8, 8, 8),
                time_shift=0.0,
                sin_first=False,
                remat="blocks",
                dtype="bfloat16",
            ),
            condition="clip",
            scale=0.18215,
            preview=PreviewConfig(prompts=("a photograph of an astronaut riding a horse",) * 4, steps=50, guidance=7.5),
        ),
        data=DataConfig(name="./pictures", size=512),
        optimizer=OptimizerConfig(lr=1e-4, warmup=10_000, decay="constant"),
        train=TrainConfig(steps=595_000, batch_size=2048, accumulate=2, log_every=100, preview_every=5000),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    """On emoji, which need no download, and with a text encoder that is trained, since a frozen CLIP would need one."""
    base = openmoji_ldm.shrunk(config())
    net = dataclasses.replace(base.task.net, pooled=True, dtype="float32", remat="none")
    preview = PreviewConfig(prompts=("red heart", "blue square"), steps=2)
    return dataclasses.replace(
        base,
        task=dataclasses.replace(base.task, net=net, condition="text", preview=preview),
        data=dataclasses.replace(base.data, name="openmoji", split="all", subset="quickstart"),
        train=dataclasses.replace(base.train, accumulate=1),
    )
