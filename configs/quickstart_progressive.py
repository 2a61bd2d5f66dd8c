"""Students of the quickstart's run in 8, 4, 2 and 1 steps: progressive distillation, which halves them by itself.

Paper: Salimans & Ho 2022, arXiv 2202.00512, algorithm 2.
Hardware: 2 CPU cores. Time: a few minutes. Result: Frechet distances of 1.30 (4 steps) and 1.66 (1 step) times the
teacher's in 20 steps (docs/students.md).
Command: jaxdiff train configs/quickstart.py; jaxdiff train configs/quickstart_progressive.py, then
  jaxdiff sample --model runs/quickstart_progressive --prompt "red heart" --steps 1 --guidance 1; the student in 4 steps
  is runs/quickstart_progressive/checkpoints/160.
"""

import dataclasses
from pathlib import Path

import quickstart

from jaxdiff.experiment import Experiment
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = quickstart.config()
    process = dataclasses.replace(base.task.process, objective="progressive", intervals=(8, 1), stage=80)
    preview = dataclasses.replace(base.task.preview, steps=1, guidance=1.0)
    return dataclasses.replace(
        base,
        name="quickstart_progressive",
        task=dataclasses.replace(base.task, process=process, preview=preview, teacher=Path("runs/quickstart")),
        ema=0.95,
        optimizer=OptimizerConfig(lr=5e-4, warmup=30, b2=0.99, weight_decay=0.0, decay="constant"),
        train=TrainConfig(steps=320, batch_size=16, log_every=25, preview_every=320),
        checkpoint=CheckpointConfig(every=80, keep=4),
    )


def small() -> Experiment:
    base = quickstart.shrunk(config())
    process = dataclasses.replace(base.task.process, intervals=(4, 1), stage=2)
    return dataclasses.replace(
        base, task=dataclasses.replace(base.task, process=process, teacher=Path("runs/quickstart-small"))
    )
