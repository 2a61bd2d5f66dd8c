"""The second stage of a cascade of emoji, 16x16 to 32x32; `jaxdiff sample` runs configs/openmoji_base16.py's first.

Paper: Ho et al. 2021, arXiv 2106.15282, section 3 (noise on the small picture), with the level a condition
chosen when sampling as Saharia et al. 2022 (Imagen), arXiv 2205.11487, section 2.3. Without noise: --task.levels 0
--task.net.no-augment.
Hardware: one CPU core. Time: 11 minutes. Result: docs/cascade.md.
Command: jaxdiff train configs/openmoji_sr32.py
"""

import dataclasses
from pathlib import Path

import openmoji_base16
import quickstart

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import super_resolution
from jaxdiff.training import CheckpointConfig, TrainConfig


def config() -> Experiment:
    return enlarging(16, 32, "openmoji_base16", patch=1)


def enlarging(low: int, size: int, before: str, steps: int = 1250, **shape: object) -> Experiment:
    base = openmoji_base16.config()
    net = dataclasses.replace(
        base.task.net, augment=True, attention=("none", "none", "cross"), **{"mid_attention": "cross", **shape}
    )
    task = super_resolution.Config(
        process=base.task.process,
        net=net,
        text=base.task.text,
        vocabulary=base.task.vocabulary,
        preview=base.task.preview,
        low=low,
        levels=600,
        level=100,
        before=Path("runs") / before,
    )
    return dataclasses.replace(
        base,
        name=f"openmoji_sr{size}",
        task=task,
        data=dataclasses.replace(base.data, size=size),
        train=TrainConfig(steps=steps, batch_size=16, log_every=25, preview_every=1000),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    base = quickstart.shrunk(config())
    task = dataclasses.replace(base.task, before=Path("runs/openmoji_base16-small"))
    return dataclasses.replace(base, task=task, data=dataclasses.replace(base.data, size=32))
