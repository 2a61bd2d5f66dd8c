"""One step of training, as a pure function that knows no devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.training.ema import Ema
from jaxdiff.training.optimizer import REST, Optimizer
from jaxdiff.training.state import TrainState
from jaxdiff.training.task import Known, Task
from jaxdiff.typing import Batch, Key, Metrics

SKIP = 0.99
"""The decay of the typical gradient norm in each step."""
WATCHED = ("loss", "grad_norm", "param_norm")
"""Metrics of every step; while all three are finite, so is the state."""


def make_train_step(
    task: Task,
    optimizer: Optimizer,
    ema: Ema,
    *,
    accumulate: int = 1,
    skip: float | None = None,
    reduce: Callable[[Any], Any] = lambda tree: tree,
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]:
    """Returns a function (state, batch, keys) -> (state, metrics).

    Args:
      task: its `loss` is minimised; its `absorb` moves `extra` by the stats of the whole batch.
      optimizer: turns gradients into updates.
      ema: see `training.ema`.
      accumulate: parts that the batch is worked through in, one after another; the gradient is their mean.
      skip: a step whose loss or gradient is not finite changes nothing but the count of steps, nor does one whose
        gradient is so many times the typical one (0: whatever its norm); None: every step counts. The optimizer must
        be `guarded`.
      reduce: averages a tree over devices where the caller maps the step by hand; see `parallel.compile`.

    The metrics are the loss function's, `loss`, `grad_norm` (before clipping), `update_norm`, `param_norm` (after the
    update) and `lr`; with several groups of parameters, `lr/GROUP` and `grad_norm/GROUP` too.

    Raises:
      ValueError: (when traced) if the batch does not split into `accumulate` parts.
    """

    def loss_fn(params: Any, known: Known, batch: Batch, keys: Key) -> Any:
        loss, metrics, stats = task.loss(params, known, batch, keys)
        return loss, (metrics, stats)

    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def mean_gradient(params: Any, known: Known, batch: Batch, keys: Key) -> Any:
        if accumulate == 1:
            return value_and_grad(params, known, batch, keys)

        def split(x: jax.Array) -> jax.Array:
            # Part i takes every `accumulate`-th example, so that a batch split over devices stays where it is.
            return x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)

        # Keys go as their bits: JAX's check for reuse takes a transposed key for a used one.
        parts = jax.tree.map(split, (batch, jax.random.key_data(keys)))

        def one(part: tuple[Batch, jax.Array]) -> Any:
            keys_of_part = jax.random.wrap_key_data(part[1], impl=jax.random.key_impl(keys))
            return value_and_grad(params, known, part[0], keys_of_part)

        like = jax.eval_shape(lambda parts: one(jax.tree.map(lambda x: x[0], parts)), parts)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        total, _ = jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, one(part)), None), zeros, parts)
        return jax.tree.map(lambda x: x / accumulate, total)

    def step(state: TrainState, batch: Batch, keys: Key) -> tuple[TrainState, Metrics]:
        if keys.size % accumulate:
            raise ValueError(
                f"a batch of {keys.size} does not split into accumulate = {accumulate} parts: choose a batch size "
                "that is a multiple of accumulate x devices."
            )
        known = Known(state.frozen, state.extra, state.ema_params, state.step)
        (loss, (metrics, stats)), grads = reduce(mean_gradient(state.params, known, batch, keys))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        extra = task.absorb(state.extra, stats)
        norm = optax.tree.norm(grads)
        if skip is not None:
            typical = state.opt_state["typical"]
            bad = ~jnp.isfinite(loss) | ~jnp.isfinite(norm)
            bad |= (typical > 0) & (norm > skip * typical) if skip else False
            old = lambda new, old: jax.tree.map(lambda x, y: jnp.where(bad, y, x), new, old)
            opt_state["typical"] = jnp.where(typical > 0, SKIP * typical + (1 - SKIP) * norm, norm)
            params, opt_state, extra = (
                old(*pair) for pair in ((params, state.params), (opt_state, state.opt_state), (extra, state.extra))
            )
            metrics = {**metrics, "skipped": bad.astype(jnp.float32)}
        followed = {name: params[name] for name in state.ema_params} if task.averaged else params
        metrics = {
            **metrics,
            "loss": loss,
            "grad_norm": norm,
            "update_norm": optax.tree.norm(updates),
            "param_norm": optax.tree.norm(params),
            **_of_groups(optimizer, grads, state.step),
        }
        ema_params = ema(state.ema_params, followed, state.step)
        return TrainState(state.step + 1, params, opt_state, ema_params, extra, state.frozen), metrics

    return step


def _of_groups(optimizer: Optimizer, grads: Any, step: jax.Array) -> Metrics:
    """Returns the learning rate, and for several groups that of each and the norm of its gradient."""
    found: dict[str, list[jax.Array]] = {}
    for name, grad in zip(jax.tree.leaves(optimizer.members(grads)), jax.tree.leaves(grads), strict=True):
        found.setdefault(name, []).append(grad)
    if [*found] == [REST]:
        return {"lr": optimizer.rates[REST](step)}
    rates = {f"lr/{name}": optimizer.rates[name](step) for name in found}
    return rates | {f"grad_norm/{name}": optax.tree.norm(own) for name, own in found.items()}
