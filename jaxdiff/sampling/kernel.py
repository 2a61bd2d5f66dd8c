"""The one `lax.scan` of the library: a kernel is what a sampler does in one step, `drive` runs it.

Everything that walks from noise to data is a pure state machine: `init` makes the state from the first picture, `step`
advances it with this step's row of numbers and this step's keys, `read` takes the picture out. Tables of coefficients
(`table.run`) and Langevin correctors (`langevin`) are kernels; rows are arguments of the compiled function, so other
rows of the same shapes compile nothing.

Randomness is per picture: step n of picture i draws from key_i with n folded in, and so depends neither on the batch
around it nor on what the other steps draw.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.typing import Key


class Kernel(NamedTuple):
    """The three functions of one step.

    Attributes:
      init: x -> state.
      step: (state, row, keys [b] or None) -> (state, x0 estimate).
      read: state -> x.
    """

    init: Callable[[Array], Any]
    step: Callable[[Any, Any, Key | None], tuple[Any, Array]]
    read: Callable[[Any], Array]


class Trajectory(NamedTuple):
    """Every step of a run: the picture after each network call (the last is the result), and each x0 estimate."""

    x: Float[Array, " n b *s"]
    x0: Float[Array, " n b *s"]


def keys_of(key: Key, batch: int) -> Key:
    """Returns keys [b]: those given, or a split of the one given.

    Raises:
      ValueError: if there are keys, but not one for each picture.
    """
    if key.ndim == 0:
        return jax.random.split(key, batch)
    if key.shape != (batch,):
        raise ValueError(f"got keys of shape {key.shape} for {batch} pictures: pass one key, or one for each picture")
    return key


def normal(keys: Key, shape: tuple[int, ...]) -> Float[Array, " b *s"]:
    """Returns unit Gaussian noise of shape [b, *shape], picture i from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def drive(kernel: Kernel, rows: Any, x_init: Array, key: Key | None, trajectory: bool = False) -> Array | Trajectory:
    """Runs a kernel over `rows`, a pytree of arrays with one leading axis of steps.

    Args:
      kernel: what a step does.
      rows: what each step is given.
      x_init: the first picture [b, ...]; the state is float32.
      key: one key, keys [b], or None for a kernel that draws nothing.
      trajectory: return every step, not only the last.
    """
    x_init = x_init.astype(jnp.float32)
    keys = None if key is None else keys_of(key, x_init.shape[0])

    def step(state: Any, numbered: Any) -> tuple[Any, Any]:
        n, row = numbered
        step_keys = None if keys is None else jax.vmap(lambda k: jax.random.fold_in(k, n))(keys)
        state, x0 = kernel.step(state, row, step_keys)
        return state, (Trajectory(kernel.read(state), x0) if trajectory else None)

    count = jax.tree.leaves(rows)[0].shape[0]
    state, steps = jax.lax.scan(step, kernel.init(x_init), (jnp.arange(count), rows))
    return steps if trajectory else kernel.read(state)
