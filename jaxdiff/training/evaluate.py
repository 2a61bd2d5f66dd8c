"""The loss of the averaged weights on held-out examples, with the same noise every time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from jaxdiff.parallel import Program
from jaxdiff.training.state import TrainState
from jaxdiff.training.task import Known, Task
from jaxdiff.typing import Batch, Key, Metrics, Params


def make_eval_step(
    task: Task, *, reduce: Callable[[Any], Any] = lambda tree: tree
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]:
    """Returns a function (state, batch, keys) -> (the same state, metrics of the averaged weights), to be compiled."""
    loss_fn = task.held_out or task.loss

    def step(state: TrainState, batch: Batch, keys: Key) -> tuple[TrainState, Metrics]:
        known = Known(state.frozen, state.extra, state.ema_params, state.step)
        loss, metrics, _ = loss_fn(averaged(state), known, batch, keys)
        loss, metrics = reduce((loss, metrics))
        return state, {f"ema_{name}": value for name, value in {**metrics, "loss": loss}.items()}

    return step


def averaged(state: TrainState) -> Params:
    """Returns the averaged parameters, and in place of those that no average follows themselves."""
    whole = isinstance(state.ema_params, Mapping) and isinstance(state.params, Mapping)
    return {**state.params, **state.ema_params} if whole else state.ema_params


def make_evaluate(
    program: Program, batches: Callable[[], Iterable[Batch]], key: Key, batch_size: int
) -> Callable[[TrainState], tuple[TrainState, dict[str, float]]]:
    """What `fit` takes as `evaluate`: the means of `ema_loss` and the other metrics over the batches.

    Args:
      program: compiled from `make_eval_step`.
      batches: gives the same held-out batches, of `batch_size` over all processes, each time it is called.
      key: root of the noise, the same each time, so that two checkpoints differ by their weights alone.
      batch_size: of each batch.
    """

    def evaluate(state: TrainState) -> tuple[TrainState, dict[str, float]]:
        seen = []
        for i, batch in enumerate(batches()):
            state, metrics = program.step(state, program.put(batch), program.keys(key, i, batch_size))
            seen.append(metrics)
        if not seen:
            raise ValueError("no held-out batch to evaluate on: the held-out set is smaller than one batch.")
        host = jax.device_get(seen)
        return state, {name: sum(float(metrics[name]) for metrics in host) / len(host) for name in host[0]}

    return evaluate
