"""GLIDE's base model at 64x64: 2.3 billion numbers in the U-Net, 1.2 billion in the text transformer.

Paper: Nichol et al. 2021, arXiv 2112.10741, section 4.1: ADM's U-Net of width 512, a text transformer of 24 blocks of
width 2048, 128 tokens, 2.5M steps of 2048. `small()` has openmoji_glide.py's size; data are a folder of pictures with
captions, given as --data.name.
Hardware: a pod of accelerators. Time: not measured yet. Result: not measured yet.
Command: jaxdiff train configs/glide64.py --data.name FOLDER
"""

import dataclasses

import openmoji_glide

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import glide
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    width = 512
    net = UNetConfig(
        out_channels=6,
        channels=(width, 2 * width, 3 * width, 4 * width),
        layers=3,
        attention=("none", "joint", "joint", "joint"),
        mid_attention="joint",
        heads=(8, 16, 24, 32),
        addition="plain",
        scale_shift=True,
        adm_resample=True,
        time_shift=0.0,
        sin_first=False,
        dropout=0.1,
        remat="blocks",
        dtype="bfloat16",
    )
    text = TextConfig(
        vocabulary=50304,
        length=128,
        width=2048,
        layers=24,
        heads=32,
        filled=True,
        projection=4 * width,
        dtype="bfloat16",
    )
    preview = PreviewConfig(prompts=("an oil painting of a corgi",), steps=100)
    return Experiment(
        name="glide64",
        task=glide.Config(
            process=ProcessConfig(times="steps", variance="learned"),
            net=net,
            text=text,
            vocabulary=50257,
            preview=preview,
        ),
        data=DataConfig(name="openmoji", size=64),
        ema=0.9999,
        optimizer=OptimizerConfig(name="adamw", lr=1e-4, decay="constant"),
        train=TrainConfig(steps=2_500_000, batch_size=2048, log_every=100),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    base = openmoji_glide.shrunk(config())
    net = dataclasses.replace(base.task.net, remat="none", dtype="float32")
    task = dataclasses.replace(
        base.task, net=net, text=dataclasses.replace(base.task.text, dtype="float32", vocabulary=512), vocabulary=512
    )
    return dataclasses.replace(base, task=task)
