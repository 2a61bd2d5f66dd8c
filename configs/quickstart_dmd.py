"""A student of the quickstart's run in 1 to 4 steps: distribution matching distillation.

Paper: Yin et al. 2024, arXiv 2405.14867 (DMD2): the fake moves faster than the student, which starts its later steps
from what it made in the earlier ones. The paper's critic is --task.adversarial.
Hardware: one CPU core. Time: 3 minutes. Result: Frechet distances of 1.38 (4 steps) and 1.81 (1 step) times the
teacher's in 20 steps; docs/students.md.
Command: jaxdiff train configs/quickstart.py; jaxdiff train configs/quickstart_dmd.py --task.steps 4, then
  jaxdiff sample --model runs/quickstart_dmd --prompt "red heart" --steps 4 --guidance 1.
"""

import dataclasses

import quickstart_lcm

from jaxdiff.experiment import Experiment
from jaxdiff.tasks import picture_dmd
from jaxdiff.training import OptimizerConfig


def config() -> Experiment:
    base = quickstart_lcm.taught("quickstart_dmd", picture_dmd.Config, steps=100)
    fake = OptimizerConfig(lr=1e-3, b1=0.0, b2=0.99, weight_decay=0.0, decay="constant")
    student = dataclasses.replace(fake, lr=3e-4, warmup=30, decay="cosine")
    return dataclasses.replace(
        base, task=dataclasses.replace(base.task, groups=(("(fake|critic)/.*", fake),)), optimizer=student
    )


def small() -> Experiment:
    base = quickstart_lcm.shrunk(config())
    return dataclasses.replace(base, task=dataclasses.replace(base.task, steps=2))
