"""Multinomial diffusion of the captions of emoji, letter by letter.

Paper: Hoogeboom et al. 2021, arXiv 2102.05379: 1.72 bits/character on text8, of 256 characters.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/text/text_multinomial.py
"""

import dataclasses

import text_masked

from jaxdiff.experiment import Experiment


def config() -> Experiment:
    return of(text_masked.config())


def small() -> Experiment:
    return of(text_masked.small())


def of(base: Experiment) -> Experiment:
    """Makes of a run of masked diffusion the same of multinomial diffusion."""
    name = base.name.replace("masked", "multinomial")
    return dataclasses.replace(base, name=name, task=dataclasses.replace(base.task, process="multinomial"))
