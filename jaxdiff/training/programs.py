"""The programs of a run as a file: the step, the first state and the keys, so that a start traces none of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.parallel import Program, executable
from jaxdiff.parallel.compile import check_key, split_keys
from jaxdiff.training.state import TrainState
from jaxdiff.training.task import Task, Variables
from jaxdiff.typing import Batch, Key, Params

Arguments = tuple[TrainState, Params, Batch, Any]
"""The shapes, with shardings, of the state, of what was loaded, of a batch, and of its keys."""


def lower_start(init_state: Callable[..., TrainState], arguments: Arguments) -> dict[str, Any]:
    """Lowers what makes the first state, the keys of a step and, where something is frozen, that alone."""
    like, loaded, batch, keys = arguments
    everywhere = NamedSharding(keys.sharding.mesh, P())
    root = jax.ShapeDtypeStruct((), keys.dtype, sharding=everywhere)
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    start = lambda loaded, root, batch: init_state(root, loaded, batch)
    found = {
        "init": executable.lower(start, (loaded, root, batch), _shardings(like)),
        "keys": executable.lower(
            lambda _, root, step: split_keys(root, step, keys.shape[0]), ({}, root, number), keys.sharding
        ),
    }
    if jax.tree.leaves(like.frozen):
        frozen = lambda *inputs: start(*inputs).frozen
        found["frozen"] = executable.lower(frozen, (loaded, root, batch), _shardings(like.frozen))
    return found


def _shardings(like: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, like)


def shapes(variables: Variables) -> dict[str, Any]:
    """Returns the shapes and dtypes of a model's arrays as JSON.

    Raises:
      ValueError: if they lie in anything but dictionaries.
    """

    def write(tree: Any, path: str) -> Any:
        if isinstance(tree, Mapping):
            return {name: write(part, f"{path}/{name}") for name, part in tree.items()}
        if not hasattr(tree, "shape"):
            raise ValueError(f"--save-executable: {path} is {type(tree).__name__}: expected arrays in dictionaries")
        return [list(tree.shape), str(tree.dtype)]

    return {name: write(tree, name) for name, tree in variables._asdict().items()}


def described(task: Task, noted: Mapping[str, Any]) -> Task:
    """Returns the task with an `init` that traces no network, for the shapes of its state alone.

    Args:
      task: what is trained.
      noted: from `shapes`.
    """

    def read(noted: Any) -> Any:
        if isinstance(noted, Mapping):
            return {name: read(part) for name, part in noted.items()}
        return jnp.zeros(*noted)

    return dataclasses.replace(task, init=lambda key, loaded, batch: Variables(*map(read, noted.values())))


def arguments(program: Program, batch_size: int) -> Arguments:
    """Returns the shapes of what a run gives its programs."""
    loaded, batch = program.inputs()
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    at = next(iter(batch.values())).sharding
    keys = jax.ShapeDtypeStruct((batch_size,), jax.random.key(0).dtype, sharding=at)
    return program.like, jax.tree.map(place, loaded), jax.tree.map(place, batch), keys


def loaded(program: Program, saved: executable.Saved, batch_size: int) -> Program:
    """Returns a program whose functions are those of a file, for a batch of one size.

    Args:
      program: as it is compiled of `described`: nothing of it is called but `put`, and `keys` for other sizes.
      saved: contents of the file, whose key was checked.
      batch_size: examples of the step, over all devices.
    """
    like = program.like
    names, everywhere = saved.notes["metrics"], NamedSharding(program.mesh, P())
    count, rest = len(jax.tree.leaves(like)), 1 + len(jax.tree.leaves(program.inputs()[1]))
    call = saved.load("step", (count, rest))
    draw = saved.load("keys", (0, 2))

    def start(name: str, like: Any) -> Callable[[Key], Any]:
        def make(key: Key) -> Any:
            weights, batch = program.inputs()
            make = saved.load(name, (len(jax.tree.leaves(weights)), rest))
            inputs = [jax.device_put(key, everywhere), *jax.tree.leaves(batch)]
            return jax.tree.unflatten(jax.tree.structure(like), make(jax.tree.leaves(weights), inputs))

        return make

    def keys(root: Key, step: int, batch: int) -> Key:
        if batch != batch_size:
            return program.keys(root, step, batch)
        check_key(root)
        return draw([], [jax.device_put(root, everywhere), jax.device_put(np.int32(step), everywhere)])[0]

    def step(state: Any, batch: Batch, keys: Any) -> Any:
        out = call(jax.tree.leaves(state), jax.tree.leaves((batch, keys)))
        metrics = dict(zip(names, out[count:], strict=True))
        return jax.tree.unflatten(jax.tree.structure(like), out[:count]), metrics

    frozen = start("frozen", like.frozen) if jax.tree.leaves(like.frozen) else lambda key: like.frozen
    return dataclasses.replace(program, init=start("init", like), frozen=frozen, keys=keys, step=step)
