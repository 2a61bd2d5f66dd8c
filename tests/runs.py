"""Runs with random weights, as training would have left them: for tests of what reads a run."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import data, experiment, training
from jaxdiff.cli.config import read_config
from jaxdiff.tasks import saved
from jaxdiff.training.checkpoint import Checkpoints


def write(config_file, folder):
    """Writes a run of the experiment in a config file, with one checkpoint."""
    config = read_config(pathlib.Path(config_file))
    folder = pathlib.Path(folder)
    folder.mkdir()
    assets = config.task.assets(folder, config.data, data.open_source(config.data), new=True)
    task = config.task.task(assets)
    init = training.make_init_state(task, training.make_optimizer(config.optimizer, config.train.steps, task.groups))
    shapes = jax.eval_shape(init, jax.random.key(0), {}, saved.blank(task, config.data.size))
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.1, x.dtype), shapes)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state, {}, None)
    (folder / "config.json").write_text(experiment.to_json(config))
    return folder
