"""GLIDE small: every emoji without skin tones and flags at 32x32, text states among the keys of the U-Net's attention.

Paper: Nichol et al. 2021, arXiv 2112.10741; x0 prediction as in quickstart.py, and padding, pooled state and dropped
captions (20%) as the paper has them.
Hardware: one CPU core. Time: 27 minutes. Result: docs/glide.md.
Command: jaxdiff train configs/openmoji_glide.py
"""

import dataclasses

import openmoji_base16
import quickstart

from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.tasks import glide


def config() -> Experiment:
    base = openmoji_base16.config()
    net = dataclasses.replace(
        base.task.net,
        patch=2,
        attention=("none", "joint", "joint"),
        mid_attention="joint",
        pooled=False,
        addition="plain",
        scale_shift=True,
        adm_resample=True,
    )
    text = TextConfig(vocabulary=1024, length=16, width=96, layers=2, heads=3, filled=True, projection=128)
    task = glide.Config(process=base.task.process, net=net, text=text, vocabulary=1024, preview=base.task.preview)
    return dataclasses.replace(
        base,
        name="openmoji_glide",
        task=task,
        data=dataclasses.replace(base.data, size=32),
        train=dataclasses.replace(base.train, steps=3000),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """The same kind of run as `base` in seconds, as quickstart.py has it."""
    made = quickstart.shrunk(base)
    text = dataclasses.replace(made.task.text, projection=4 * made.task.net.channels[0])
    return dataclasses.replace(made, task=dataclasses.replace(made.task, text=text))
