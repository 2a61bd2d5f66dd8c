"""Measurements of the host's work: the data loader, and checkpoints."""

import contextlib
import dataclasses
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff import data, training
from jaxdiff.benchmarks import subject as subjects
from jaxdiff.experiment import Experiment
from jaxdiff.metrics import speed
from jaxdiff.training.checkpoint import Checkpoints

PICTURES = 4096
"""The batches of one timed pass of the loader: many more than it holds ready."""


def loader(config: Experiment, batch: int, rounds: int) -> dict[str, Any]:
    """Measures reading the experiment's pictures, first from disk and then again: small sets stay in memory."""
    source = data.open_source(config.data)
    with tempfile.TemporaryDirectory() as folder:
        task = config.task.task(config.task.assets(Path(folder), config.data, source, new=True))
    stream = data.batches(source, config.data, batch_size=batch, seed=0, example=task.example)

    def read(pictures: int) -> float:
        """Measures reading, in pictures a second."""
        count, began = -(-pictures // batch), time.perf_counter()
        for _ in itertools.islice(stream, count):
            pass
        return count * batch / (time.perf_counter() - began)

    with contextlib.closing(stream):
        first = read(min(len(source), PICTURES))
        again = [read(PICTURES) for _ in range(rounds)]
    return {
        "name": "loader",
        "batch": batch,
        "pictures": len(source),
        "first_images_per_s": first,
        "images_per_s": dataclasses.asdict(speed.summary(again)),
    }


def checkpoint(config: Experiment, rounds: int) -> dict[str, Any]:
    """Measures saving and restoring a train state: until `save` returns, until all is written, and back."""
    task, _ = subjects.made_up(config)
    optimizer = training.make_optimizer(config.optimizer, config.train.steps, task.groups)
    make_state = training.make_init_state(task, optimizer)
    shapes = jax.eval_shape(make_state, jax.random.key(0), {}, subjects.batch(config, task, 1, 0))
    state = jax.device_put(subjects.random_state(shapes))
    bytes_ = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    blocked, save, restore = [], [], []
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), training.CheckpointConfig(keep=1)) as kept:
        for i in range(rounds + 1):
            state = dataclasses.replace(state, step=jnp.int32(i))
            began = time.perf_counter()
            kept.save(state, {}, None)
            blocked.append(time.perf_counter() - began)
            kept.wait()
            save.append(time.perf_counter() - began)
            began = time.perf_counter()
            jax.block_until_ready(kept.restore(state)[0])
            restore.append(time.perf_counter() - began)
    return {
        "name": "checkpoint",
        "bytes": bytes_,
        **{
            name: dataclasses.asdict(speed.summary(times[1:]))  # the first makes folders and threads
            for name, times in (("blocked", blocked), ("save", save), ("restore", restore))
        },
    }
