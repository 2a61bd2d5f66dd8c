"""What training carries from one step to the next: arrays, and nothing else."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.typing import Key, Params

NOT_SAVED = ("frozen",)
"""Fields that checkpoints leave out, since a task reads them again from where they came."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a training run.

    Attributes:
      step: steps done, an int32 scalar.
      params: the float32 master weights.
      opt_state: the optimizer's.
      ema_params: the running average of `params`, which samples are drawn from.
    """

    step: Any  # arrays, or what stands for them in a tree of the same shape: shapes, shardings
    params: Any
    opt_state: Any
    ema_params: Any


def make_init_state(
    init: Callable[[Key], Params], optimizer: optax.GradientTransformation
) -> Callable[[Key], TrainState]:
    """A function (key) -> TrainState at step 0, from a task's `init`.

    Raises:
      ValueError: (when called) if a parameter is not float32. Steps of a small learning rate are lost in bfloat16
        weights; networks compute in bfloat16 from float32 weights instead.
    """

    def init_state(key: Key) -> TrainState:
        params = init(key)
        wrong = [
            f"{jax.tree_util.keystr(path, simple=True, separator='/')} ({leaf.dtype})"
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if leaf.dtype != jnp.float32
        ]
        if wrong:
            raise ValueError(
                f"parameters must be float32, but these are not: {', '.join(wrong)}; set the network's compute dtype, "
                "which leaves the weights in float32."
            )
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), params)

    return init_state
