"""A student of the quickstart's run in 1 to 4 steps: latent consistency distillation, on pixels.

Paper: Luo et al. 2023, arXiv 2310.04378: neighbours on a grid of 40 intervals, the target of averaged weights.
Hardware: 2 CPU cores. Time: a few minutes. Result: Frechet distances of 1.08 (4 steps) and 2.0 (1 step) times the
teacher's in 20 steps (docs/students.md).
Command: jaxdiff train configs/quickstart.py; jaxdiff train configs/quickstart_lcm.py, then
  jaxdiff sample --model runs/quickstart_lcm --prompt "red heart" --steps 4 --guidance 1.
"""

import dataclasses
from pathlib import Path
from typing import Any

import quickstart

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import picture_lcm, student
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = taught("quickstart_lcm", picture_lcm.Config, steps=120)
    process = dataclasses.replace(base.task.process, weight="simple")  # which this loss does not read
    return dataclasses.replace(base, task=dataclasses.replace(base.task, process=process))


def taught(name: str, kind: type[student.StudentConfig], steps: int, **fields: Any) -> Experiment:
    """A student of the quickstart's run: the same network and data, previews in four steps without guidance."""
    base = quickstart.config()
    shared = {name: getattr(base.task, name) for name in ("process", "net", "text", "condition", "vocabulary")}
    shared |= {"preview": dataclasses.replace(base.task.preview, steps=4, guidance=1.0), "drop": 0.0}
    shared |= {"teacher": Path("runs/quickstart"), "guidance": 3.0}
    return dataclasses.replace(
        base,
        name=name,
        task=kind(**{**shared, **fields}),
        optimizer=OptimizerConfig(lr=5e-4, warmup=30, b2=0.99, weight_decay=0.0),
        train=TrainConfig(steps=steps, batch_size=16, log_every=25, preview_every=steps),
        checkpoint=CheckpointConfig(every=steps),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """A small form of such a run, of the quickstart's small run."""
    small = quickstart.shrunk(base)
    return dataclasses.replace(small, task=dataclasses.replace(small.task, teacher=Path("runs/quickstart-small")))
