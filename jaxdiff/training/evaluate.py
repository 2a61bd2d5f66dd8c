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
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, tuple[Metrics, Any]]]:
    """Returns a function (state, batch, keys) -> (the same state, (metrics, stats)), to be compiled.

    Both are of the averaged weights; stats are what `task.summary` takes, and empty where it takes nothing.
    """
    loss_fn = task.held_out or task.loss

    def step(state: TrainState, batch: Batch, keys: Key) -> tuple[TrainState, tuple[Metrics, Any]]:
        known = Known(state.frozen, state.extra, state.ema_params, state.step)
        loss, metrics, stats = loss_fn(averaged(state), known, batch, keys)
        return state, reduce(({**metrics, "loss": loss}, stats if task.summary else {}))

    return step


def averaged(state: TrainState) -> Params:
    """Returns the averaged parameters, and in place of those that no average follows themselves."""
    by_name = isinstance(state.ema_params, Mapping) and isinstance(state.params, Mapping)
    return {**state.params, **state.ema_params} if by_name else state.ema_params


def make_evaluate(
    program: Program,
    batches: Callable[[], Iterable[Batch]],
    key: Key,
    batch_size: int,
    summary: Callable[[Any], Mapping[str, float]] | None = None,
) -> Callable[[TrainState], tuple[TrainState, dict[str, float]]]:
    """Returns what `fit` takes as `evaluate`: means of `ema_loss` and other metrics over the batches, and the summary.

    Args:
      program: compiled from `make_eval_step`.
      batches: gives the same held-out batches, of `batch_size` over all processes, each time it is called.
      key: root of the noise, the same each time, so that two checkpoints differ by their weights alone.
      batch_size: size of each batch.
      summary: see `Task`.
    """

    def evaluate(state: TrainState) -> tuple[TrainState, dict[str, float]]:
        seen = []
        for i, batch in enumerate(batches()):
            state, metrics = program.step(state, program.put(batch), program.keys(key, i, batch_size))
            seen.append(metrics)
        if not seen:
            raise ValueError("no held-out batch to evaluate on: the held-out set is smaller than one batch.")
        metrics, stats = jax.tree.map(lambda *each: sum(each) / len(each), *jax.device_get(seen))
        measured = {**metrics, **(summary(stats) if summary else {})}
        return state, {f"ema_{name}": float(value) for name, value in measured.items()}

    return evaluate
