"""The third stage of a cascade of emoji, 32x32 to 64x64; `jaxdiff sample` runs the two before it first.

Paper: Ho et al. 2021, arXiv 2106.15282, and Saharia et al. 2022 (Imagen), arXiv 2205.11487, as openmoji_sr32.py.
Hardware: one CPU core. Time: 16 minutes. Result: docs/cascade.md.
Command: jaxdiff train configs/openmoji_sr64.py && jaxdiff sample --model runs/openmoji_sr64 --prompt "red heart"
"""

import dataclasses
from pathlib import Path

import openmoji_sr32
import quickstart

from jaxdiff.experiment import Experiment


def config() -> Experiment:
    return openmoji_sr32.enlarging(32, 64, "openmoji_sr32", patch=2)


def small() -> Experiment:
    base = quickstart.shrunk(config())
    task = dataclasses.replace(base.task, before=Path("runs/openmoji_sr32-small"))
    return dataclasses.replace(base, task=task, data=dataclasses.replace(base.data, size=64))
