"""Imagen in small, its second stage: 32x32 to 64x64, with the same frozen text encoder as openmoji_imagen32.py.

Paper: Saharia et al. 2022, arXiv 2205.11487, section 2.3.
Hardware: one CPU core. Time: 11 minutes. Result: docs/imagen.md.
Command: jaxdiff train configs/openmoji_imagen64.py && jaxdiff sample --model runs/openmoji_imagen64 --prompt "tree"
"""

import dataclasses
from pathlib import Path

import openmoji_imagen32
import openmoji_sr64

from jaxdiff.experiment import Experiment


def config() -> Experiment:
    base = openmoji_sr64.config()
    return dataclasses.replace(
        base,
        name="openmoji_imagen64",
        task=dataclasses.replace(
            base.task,
            net=dataclasses.replace(base.task.net, pooled=False),
            condition="clip",
            text_encoder=openmoji_imagen32.CLIP,
            before=Path("runs/openmoji_imagen32"),
        ),
        train=dataclasses.replace(base.train, steps=1000),
    )


def small() -> Experiment:
    base, first = openmoji_sr64.small(), openmoji_imagen32.small()
    task = dataclasses.replace(
        base.task,
        net=dataclasses.replace(base.task.net, pooled=False),
        condition="clip",
        text_encoder=first.task.text_encoder,
        low=first.data.size,
        before=Path("runs/openmoji_imagen32-small"),
    )
    size = 2 * first.data.size
    return dataclasses.replace(
        base, name="openmoji_imagen64-small", task=task, data=dataclasses.replace(base.data, size=size)
    )
