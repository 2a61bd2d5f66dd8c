"""GLIDE small that fills: openmoji_glide.py trained on with four more channels, the known part and where it is.

Paper: Nichol et al. 2021, arXiv 2112.10741, section 4.2.
Hardware: one CPU core. Time: 8 minutes. Result: docs/glide.md.
Command: jaxdiff train configs/openmoji_glide_inpaint.py --task.begin runs/openmoji_glide
"""

import dataclasses

import openmoji_glide

from jaxdiff.experiment import Experiment


def config() -> Experiment:
    base = openmoji_glide.config()
    return dataclasses.replace(
        base,
        name="openmoji_glide_inpaint",
        task=dataclasses.replace(base.task, fills=True),
        optimizer=dataclasses.replace(base.optimizer, lr=3e-4),
        train=dataclasses.replace(base.train, steps=1000),
    )


def small() -> Experiment:
    return openmoji_glide.shrunk(config())
