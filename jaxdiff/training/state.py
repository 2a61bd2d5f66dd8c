"""The state that training carries from one step to the next: arrays, and nothing else."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.training.optimizer import Optimizer
from jaxdiff.training.task import Task
from jaxdiff.typing import Batch, Key, Params

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
      ema_params: the running average of `params` (or of `Task.averaged` of them), which samples are drawn from.
      extra: what `Task.absorb` moves.
      frozen: what is constant; never saved.
    """

    step: Any  # arrays, or what stands for them in a tree of the same shape: shapes, shardings
    params: Any
    opt_state: Any
    ema_params: Any
    extra: Any = dataclasses.field(default_factory=dict)
    frozen: Any = dataclasses.field(default_factory=dict)


def make_init_state(task: Task, optimizer: Optimizer) -> Callable[[Key, Params, Batch], TrainState]:
    """Returns a function (key, loaded, first batch) -> TrainState at step 0.

    Raises:
      ValueError: (when called) if a parameter is not float32, since steps of a small learning rate are lost in bfloat16
        weights (networks compute in bfloat16 from float32 weights instead); or if the names in `Task.averaged` or the
        patterns in `Task.groups` are of no parameter.
    """

    def init_state(key: Key, loaded: Params, batch: Batch) -> TrainState:
        params, frozen, extra = task.init(key, loaded, batch)
        wrong = [
            f"{jax.tree_util.keystr(path, simple=True, separator='/')} ({leaf.dtype})"
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if leaf.dtype != jnp.float32
        ]
        if wrong:
            more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
            raise ValueError(
                f"parameters must be float32, but these are not: {', '.join(wrong[:10])}{more}; set the network's "
                "compute dtype, which leaves the weights in float32."
            )
        if unknown := [name for name in task.averaged if name not in params]:
            raise ValueError(f"averaged names no parameters: {', '.join(unknown)}; there are {', '.join(params)}")
        average = {name: params[name] for name in task.averaged} if task.averaged else params
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), average, extra, frozen)

    return init_state
