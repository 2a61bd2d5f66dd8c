"""Imagen in small, its first stage: emoji without skin tones and flags at 32x32, their names read by a frozen encoder.

Paper: Saharia et al. 2022, arXiv 2205.11487, sections 2.1 and 2.4: a frozen text encoder (there T5-XXL, here that of
configs/openmoji_clip.py), whose states every level of the U-Net attends to. With one trained from the start instead:
--task.condition text --task.net.pooled --task.text-encoder None.
Hardware: one CPU core. Time: 20 minutes, after 10 for the CLIP. Result: docs/imagen.md.
Command: jaxdiff train configs/openmoji_clip.py && jaxdiff train configs/openmoji_imagen32.py
"""

import dataclasses
from pathlib import Path

import openmoji_base16

from jaxdiff.experiment import Experiment

CLIP = Path("runs/openmoji_clip")


def config() -> Experiment:
    base = openmoji_base16.config()
    net = dataclasses.replace(base.task.net, patch=2, pooled=False)
    return dataclasses.replace(
        base,
        name="openmoji_imagen32",
        task=dataclasses.replace(base.task, net=net, condition="clip", text_encoder=CLIP),
        data=dataclasses.replace(base.data, size=32),
        train=dataclasses.replace(base.train, steps=2000),
    )


def small() -> Experiment:
    base = openmoji_base16.small()
    net = dataclasses.replace(base.task.net, pooled=False)
    task = dataclasses.replace(base.task, net=net, condition="clip", text_encoder=Path("runs/openmoji_clip-small"))
    return dataclasses.replace(base, name="openmoji_imagen32-small", task=task)
