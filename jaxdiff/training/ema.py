"""The running average of the weights that samples are drawn from."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdiff.typing import Params

Ema = Callable[[Params, Params, jax.Array], Params]
"""(average, new parameters, updates before this one) -> average."""


def make_ema(decay: float = 0.9999) -> Ema:
    """Returns an exponential moving average whose memory grows with the run until it reaches `decay`.

        average <- average + (1 - d_t) (params - average),   d_t = min(decay, (1 + t) / (10 + t))

    At t = 0 the random first weights count 1/10; after t updates their part in the average is below 10! / t^9, where a
    constant 0.9999 would still hold 90% of them after 1000 steps.

    Args:
      decay: in [0, 1); 0 keeps the parameters themselves.

    Raises:
      ValueError: if `decay` is outside its range.

    Source: the start-up of tf.train.ExponentialMovingAverage, as in Ho et al. 2020 and its successors.
    """
    if not 0 <= decay < 1:
        raise ValueError(
            f"ema decay = {decay} is not in [0, 1): 0 is not an average, 0.9999 remembers about 10,000 steps."
        )

    def ema(average: Params, params: Params, updates: jax.Array) -> Params:
        new = 1 - jnp.minimum(decay, (1 + updates) / (10 + updates))
        return jax.tree.map(lambda old, value: old + new * (value - old), average, params)

    return ema
