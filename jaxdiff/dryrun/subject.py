"""Subjects of a dry run: a training step of an experiment in shapes alone, without data, weights or devices."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff import data, parallel, training
from jaxdiff.data.config import is_latents
from jaxdiff.data.source import Example
from jaxdiff.experiment import Experiment
from jaxdiff.parallel.mesh import AXES
from jaxdiff.tasks.saved import blank
from jaxdiff.trainer import make_step
from jaxdiff.training import Task
from jaxdiff.typing import Batch, Params


@dataclasses.dataclass(frozen=True)
class Subject:
    """A training step, described.

    Attributes:
      config: config of the run.
      task: what is trained.
      step: (state, batch, keys) -> (state, metrics), to be traced.
      like: the state with shapes, dtypes and shardings.
      mesh: mesh of devices that need not exist.
      row: one example, as a batch holds it.
      init_state: (key, loaded, batch) -> the first state.
      loaded: the shapes of what is loaded, with shardings.
      variables: the shapes of the model's arrays.
    """

    config: Experiment
    task: Task
    step: Callable[..., Any]
    like: Any
    mesh: Any
    row: Batch
    init_state: Callable[..., Any]
    loaded: Params
    variables: training.Variables

    @property
    def ways(self) -> int:
        """Devices that share the examples of a batch."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def arguments(self, examples: int) -> tuple[Any, Any, Any]:
        """Returns the shapes of state, batch and keys for a batch of so many examples."""
        at = NamedSharding(self.mesh, P(("data", "fsdp")))
        shape = lambda x: jax.ShapeDtypeStruct((examples, *x.shape[1:]), x.dtype, sharding=at)
        return (
            self.like,
            jax.tree.map(shape, self.row),
            shape(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))),
        )

    def results(self, arguments: tuple[Any, Any, Any]) -> Any:
        """Returns where the step leaves its results."""
        everywhere = NamedSharding(self.mesh, P())
        _, metrics = jax.eval_shape(self.step, *arguments)
        return jax.tree.map(lambda x: x.sharding, self.like), jax.tree.map(lambda _: everywhere, metrics)


def abstract_mesh(spec: parallel.MeshSpec, devices: int, device: Any) -> AbstractMesh:
    """Returns a mesh of so many devices of one kind, which need not exist."""
    return AbstractMesh(spec.sizes(devices), AXES, axis_types=(AxisType.Auto,) * 3, abstract_device=device)


class Nothing:
    """A source of one grey picture, with as many classes as a task wants."""

    def __init__(self, size: int, classes: int, grey: int = 0, caption: str = "") -> None:
        """Takes the side of the picture, what all its values are, and its caption."""
        self.labels = tuple(f"class {i}" for i in range(classes))
        self._size, self._grey, self._caption = size, grey, caption

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        image = np.full((self._size, self._size, 3), self._grey, np.uint8)
        return {"image": image, "caption": self._caption, "label": 0}

    def captions(self) -> list[str]:
        """Returns the caption of the picture."""
        return [self._caption]


BLACK, OTHER = (0, ""), (99, "an other picture with other words")


def describe(config: Experiment, mesh: AbstractMesh | Mesh, *, other: bool = False) -> Subject:
    """Describes the training step of an experiment on a mesh.

    The task makes its assets of a source that holds nothing, in a folder that is thrown away: a vocabulary that is
    smaller than the one of the data changes no shape, since the network has rows for the largest.

    Args:
      config: config of the run.
      mesh: mesh of devices that need not exist.
      other: takes another picture than usual: a step that is the same for both holds nothing of the data.

    Raises:
      ValueError, OSError: if the experiment does not fit the mesh, or needs files that are not there.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"] * config.train.accumulate
    if config.train.batch_size % ways:
        raise ValueError(
            f"train.batch_size is {config.train.batch_size}, which does not divide by {ways} (data x fsdp x "
            f"train.accumulate): choose a multiple of {ways}"
        )
    if stand_ins := config.task.described(config.data):
        assets, loaded, row = stand_ins
        task = _bare(config).task(assets)
    else:
        task, loaded, row = _read(config, *(OTHER if other else BLACK))
    optimizer, step = make_step(config, task)
    batch = {name: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for name, x in row.items()}
    init_state = training.make_init_state(task, optimizer)
    shapes = jax.eval_shape(init_state, jax.random.key(0), loaded, batch)
    place = lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
    like = jax.tree.map(place, shapes, parallel.shardings(shapes, mesh, task.rules))
    arguments = jax.tree.map(place, loaded, parallel.param_shardings(loaded, mesh, task.rules))
    variables = training.Variables(shapes.params, shapes.frozen, shapes.extra)
    return Subject(config, task, step(), like, mesh, row, init_state, arguments, variables)


def _read(config: Experiment, grey: int, caption: str) -> tuple[Task, Params, Batch]:
    """Returns the task, what it loads, and an example: of the latents on disk, or else of a source of nothing."""
    classes = getattr(getattr(config.task, "net", None), "labels", 0)
    cached = is_latents(config.data.name)
    source = data.open_source(config.data) if cached else Nothing(config.data.size, classes, grey, caption)
    with tempfile.TemporaryDirectory() as folder:
        task = _bare(config).task(config.task.assets(Path(folder), config.data, source, new=True))
        loaded = task.load(lambda shapes: jax.tree.map(lambda _: None, shapes))
    if not cached:
        return task, loaded, blank(task, config.data.size)
    row = task.example(source[0], np.random.default_rng(0))
    return task, loaded, {name: np.asarray(x)[None] for name, x in row.items()}


def _bare(config: Experiment) -> Any:
    """Returns the task without previews, whose prompts may be classes of the data."""
    bare: Any = config.task
    return dataclasses.replace(bare, preview=type(bare.preview)()) if hasattr(bare, "preview") else bare
