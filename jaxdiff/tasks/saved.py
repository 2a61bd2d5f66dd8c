"""The weights of a run, for whoever knows its task: to sample it, and for tasks that build on another run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff import kinds, parallel
from jaxdiff.data.source import DataConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines import first_stage
from jaxdiff.pretrained.read import Component, read_component, read_json
from jaxdiff.tasks.task import TaskConfig
from jaxdiff.training import Task, Variables
from jaxdiff.training import checkpoint as checkpoints
from jaxdiff.typing import Params


class Saved(NamedTuple):
    """A run that a task builds on.

    Attributes:
      config: config of its task.
      assets: what `config.assets` read.
      weights: with the averaged parameters.
    """

    config: TaskConfig
    assets: Any
    weights: Variables


def folder_of(path: Path) -> Path:
    """Returns the workdir of a run that is given by it or by one of its checkpoints."""
    return path.parent.parent if path.parent.name == "checkpoints" else path


def open_saved(path: Path, place: Callable[[Params], Any] | None = None) -> Saved:
    """Reads a run, or one of its checkpoints, knowing no more of it than its task and its data.

    Raises:
      FileNotFoundError: if there is no run, or no checkpoint yet.
      ValueError: if its config.json is damaged, or of a kind of task that is not installed.
    """
    config, data = read_config(path)
    assets = config.assets(folder_of(path), data)
    return Saved(config, assets, read_weights(path, config.sampled().task(assets), data.size, place))


def read_config(path: Path) -> tuple[TaskConfig, DataConfig]:
    """Reads the task and the data of a run, or of one of its checkpoints; nothing else of it.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if its config.json is damaged, or of a kind of task that is not installed.
    """
    folder = folder_of(path)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{path} is not a run of `jaxdiff train`: it has no config.json")
    fields = read_json(folder / "config.json")
    try:
        config: TaskConfig = kinds.build(TaskConfig, fields.get("task"))  # type: ignore[type-abstract]  # a tag names the class
        return config, kinds.build(DataConfig, fields.get("data"))
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error


def read_weights(path: Path, task: Task, size: int, place: Callable[[Params], Any] | None = None) -> Variables:
    """Reads the averaged parameters of a checkpoint, or of the last one of a run, with what else its task has.

    Args:
      path: the workdir, or WORKDIR/checkpoints/STEP.
      task: that was trained.
      size: size of the pictures.
      place: tree of shapes -> tree of shardings of the weights; None: one device.

    Raises:
      MismatchError: if the checkpoint is of another architecture.
    """
    loaded = task.load(place or parallel.place(MeshSpec(data=1), devices=jax.local_devices()[:1]))
    batch = blank(task, size)
    shapes = jax.eval_shape(task.init, jax.random.key(0), loaded, batch)
    params = {name: shapes.params[name] for name in task.averaged} if task.averaged else shapes.params
    params, extra = (_placed(tree, place) for tree in (params, shapes.extra))
    params, extra = checkpoints.load_weights(path, params, extra)
    frozen = shapes.frozen
    if jax.tree.leaves(frozen):
        frozen = jax.jit(lambda loaded: task.init(jax.random.key(0), loaded, batch).frozen)(loaded)
    return Variables(params, frozen, extra)


def blank(task: Task, size: int, count: int = 1) -> dict[str, np.ndarray]:
    """Returns a batch of black pictures that say nothing, for its shapes."""
    black: Any = {"image": np.zeros((size, size, 3), np.uint8), "caption": "", "label": 0}
    rows = [task.example(dict(black), np.random.default_rng(0)) for _ in range(count)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _placed(shapes: Any, place: Callable[[Params], Any] | None) -> Any:
    if place is None:
        return shapes
    with_sharding = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)
    return jax.tree.map(with_sharding, shapes, place(shapes))


def load_part(folder: Path, name: str, place: Callable[[Params], Any]) -> Params:
    """Reads the weights of a frozen network, by its name, where `place` puts such a tree; see `Task.load`."""
    return {name: read_component(folder, shardings=lambda shapes: place({name: shapes})[name]).params}


def read_autoencoder(path: Path) -> Component:
    """Reads an autoencoder: of a run of `jaxdiff train`, of a directory of diffusers, or of one of latents.

    Raises:
      FileNotFoundError: if there is none; says what may be given.
      ValueError: if it is not one of pictures, or its files are damaged.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no autoencoder at {path}: give a run of `jaxdiff train`, or a directory")
    if (folder := first_stage.find_autoencoder(path)) is not None:
        return first_stage.read_autoencoder(folder)
    if not (folder_of(path) / "config.json").is_file():
        raise FileNotFoundError(
            f"{path} holds no autoencoder: expected a run of `jaxdiff train`, or config.json and weights, there or in "
            "a folder vae"
        )
    run = open_saved(path)
    parts = run.config.bundle(run.assets, run.weights).components
    if "vae" not in parts:
        raise ValueError(f"{path} is a run of {type(run.config).__module__.rsplit('.')[-1]}, which has no autoencoder")
    return first_stage.check_pictures(parts["vae"], path)
