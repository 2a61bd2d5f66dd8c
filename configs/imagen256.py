"""Imagen's second stage, 64x64 to 256x256, by the efficient U-Net; `jaxdiff sample` runs configs/imagen64.py's first.

Paper: Saharia et al. 2022, arXiv 2205.11487, appendix F: width 128 to 1024, 2, 4, 8 and 8 residual blocks, which change
the resolution first and scale their skips by 1/sqrt(2); attention at the lowest level alone; noise of all levels on the
small picture; batches of 2048, Adam 1e-4 after 10k steps of warm-up. Text is read as in imagen64.py.
Hardware: 128 accelerators; TPU v4 in the paper. Time: not measured yet.
Result: FID 7.27 on COCO at 256x256 in the paper; ours not measured yet.
Command: jaxdiff train configs/imagen256.py --data.name DIR --mesh.fsdp 4, then
  jaxdiff sample --model runs/imagen256 --prompt TEXT
"""

import dataclasses
from pathlib import Path

import imagen64

from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import super_resolution
from jaxdiff.training import OptimizerConfig


def config() -> Experiment:
    base = imagen64.config()
    net = UNetConfig(
        channels=(128, 256, 512, 1024),
        level_layers=(2, 4, 8, 8),
        attention=("none", "none", "none", "joint"),
        mid_attention="joint",
        heads=(2, 4, 8, 16),
        scale_shift=True,
        shifted=True,
        skip_scale=2**-0.5,
        pooled=True,
        augment=True,
        context_norm=True,
        remat="blocks",
        dtype="bfloat16",
    )
    task = super_resolution.Config(
        process=base.task.process,
        net=net,
        text=base.task.text,
        vocabulary=base.task.vocabulary,
        preview=base.task.preview,
        low=64,
        before=Path("runs/imagen64"),
    )
    return dataclasses.replace(
        base,
        name="imagen256",
        task=task,
        data=dataclasses.replace(base.data, size=256),
        optimizer=OptimizerConfig(name="adam", lr=1e-4, warmup=10_000, decay="constant"),
    )


def small() -> Experiment:
    base = imagen64.on_emoji(config())
    task = dataclasses.replace(base.task, low=16, before=Path("runs/imagen64-small"))
    return dataclasses.replace(base, task=task, data=dataclasses.replace(base.data, size=32))
