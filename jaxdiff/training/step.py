"""One step of training, as a pure function that knows no devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.training.ema import Ema
from jaxdiff.training.state import TrainState
from jaxdiff.typing import Batch, Key, LossFn, Metrics

WATCHED = ("loss", "grad_norm", "param_norm")
"""Metrics of every step; while all three are finite, so is the state."""


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    ema: Ema,
    *,
    accumulate: int = 1,
    reduce: Callable[[Any], Any] = lambda tree: tree,
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]:
    """A function (state, batch, keys) -> (state, metrics).

    Args:
      loss_fn: (params, batch, keys) -> (loss, metrics), means over the batch.
      optimizer: turns gradients into updates.
      ema: see `training.ema`.
      accumulate: parts that the batch is worked through in, one after another; the gradient is their mean.
      reduce: averages a tree over devices where the caller maps the step by hand; see `parallel.compile`.

    The metrics are the loss function's, `loss`, `grad_norm` (before clipping) and `param_norm` (after the update).

    Raises:
      ValueError: (when traced) if the batch does not split into `accumulate` parts.
    """
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def mean_gradient(params: Any, batch: Batch, keys: Key) -> Any:
        if accumulate == 1:
            return value_and_grad(params, batch, keys)

        def split(x: jax.Array) -> jax.Array:
            # Part i takes every `accumulate`-th example, so that a batch split over devices stays where it is.
            return x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)

        # Keys go as their bits: JAX's check for reuse takes a transposed key for a used one.
        parts = jax.tree.map(split, (batch, jax.random.key_data(keys)))

        def one(part: tuple[Batch, jax.Array]) -> Any:
            return value_and_grad(params, part[0], jax.random.wrap_key_data(part[1], impl=jax.random.key_impl(keys)))

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
        (loss, metrics), grads = reduce(mean_gradient(state.params, batch, keys))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        metrics = {
            **metrics,
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(params),
        }
        return TrainState(state.step + 1, params, opt_state, ema(state.ema_params, params, state.step)), metrics

    return step
