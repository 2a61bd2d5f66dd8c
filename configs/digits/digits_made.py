"""A MADE of scikit-learn's digits, 8x8 of 17 grey levels, whose bits/dim are exact.

Paper: Germain et al. 2015, arXiv 1502.03509, which has no figure of these digits. Counted on the same 1500 digits,
independent pixels have 2.42 bits/dim on the other 297, and a tree of pairs (Chow and Liu 1968) 2.16 at best.
Hardware: 2 CPU cores. Time and result: not measured yet.
Command: jaxdiff train configs/digits/digits_made.py
"""

import dataclasses

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.made import MadeConfig
from jaxdiff.tasks import autoregressive
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return on_digits("digits_made", autoregressive.Config(net=MadeConfig(hidden=(512,)), grey=True, levels=17), 2500)


def on_digits(name: str, task, steps: int) -> Experiment:
    """A run on the digits, measured on those that it does not learn from."""
    return Experiment(
        name=name,
        task=task,
        data=DataConfig(name="digits", size=8, split="train"),
        held_out="test",
        held_out_batches=2,
        ema=0.99,
        optimizer=OptimizerConfig(name="adamw", lr=1e-3, warmup=50, weight_decay=0.1),
        train=TrainConfig(steps=steps, batch_size=100, log_every=50, preview_every=250),
        checkpoint=CheckpointConfig(every=250),
    )


def small() -> Experiment:
    return shrunk(config(), net=MadeConfig(hidden=(16,)))


def shrunk(base: Experiment, **task) -> Experiment:
    """The same kind of run as `base` in seconds."""
    return dataclasses.replace(
        base,
        name=f"{base.name}-small",
        task=dataclasses.replace(base.task, **({"previews": 2} | task)),
        held_out_batches=1,
        optimizer=dataclasses.replace(base.optimizer, warmup=0),
        train=dataclasses.replace(base.train, steps=6, batch_size=8, log_every=1, preview_every=3),
        checkpoint=dataclasses.replace(base.checkpoint, every=3),
    )
