"""The variational bound as a training loss, on a fixed schedule or a learned one (VDM, arXiv 2107.00630).

In the limit of many steps the bound's middle term is, for a clock r that runs from 0 to 1 while log-SNR falls evenly
from its first value to its last,

    L = 1/2 (lambda_max - lambda_min) int SNR(r) E |x0 - D|^2 dr.

A fixed schedule draws r uniformly. A learned one (`learned.Learned`) draws t and has r = r(t), each draw weighted by
r'(t): the expected loss does not depend on the function r, but its variance does. So the parameters of r follow the
gradient of E L^2, those of the network and of both ends that of E L (section 5.1, and appendix H for how one backward
pass gives both): dL^2/dr = 2 L dL/dr for each example (`squared_in`).

The reconstruction term has no network: p(x0 | x_first) is N(x_first / alpha, sigma^2 / alpha^2), whose mass is taken
on the bins of the data. It and the prior term are constants unless the ends are learned.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.diffusion import draws, loss, prediction
from jaxdiff.diffusion.bound import BITS, Bound, decoded, prior
from jaxdiff.diffusion.learned import Learned, LogLinear
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Key, Network, Params


def squared_in(f: Callable[[Any, Any], Float[Array, " b"]]) -> Callable[[Any, Any], Float[Array, " b"]]:
    """Returns a function f(a, b) -> losses [b] with f's gradient in `a`, and in `b` [b] that of f squared."""

    def forward(a: Any, b: Any) -> Any:
        losses, pull = jax.vjp(f, a, b)
        return losses, (losses, pull)

    def backward(saved: Any, g: Array) -> Any:
        losses, pull = saved
        da, db = pull(g)
        return da, jax.tree.map(lambda d: 2 * losses * d, db)

    squared = jax.custom_vjp(f)
    squared.defvjp(forward, backward)
    return squared


def bound_loss(
    network: Network, kind: str, bins: int | None = 256
) -> Callable[[Params, Schedule, Array, Array, Cond, Key], Bound]:
    """Returns a function (params, schedule, x0, u [b], cond, keys [b]) -> the terms of the bound [b], in bits/dim.

    Args:
      network: what is trained.
      kind: what it outputs.
      bins: levels of the data; None for continuous data. See `bound`.

    `u` in (0, 1) is drawn uniformly: the time. The schedule keeps variance, and its alpha is not 0 at t = 1.
    """

    def f(params: Params, schedule: Schedule, x0: Array, u: Array, cond: Cond, keys: Key) -> Bound:
        eps = loss.independent(keys, x0)
        first = jnp.full(x0.shape[:1], schedule.first, jnp.float32)
        z = loss.noised(x0, draws.noise_like(draws.fold(keys, draws.FIRST), x0), first, schedule)
        last = decoded(x0, z / over_pixels(schedule.alpha(first), x0), over_pixels(-schedule.log_snr(first), x0), bins)

        parts, form = jax.tree.flatten(cond)  # a mask's gradient is of no type that a Cond could hold

        def middle(inputs: Any, clock: Any) -> Array:
            params, schedule, x0, parts = inputs
            (r, rate), cond = clock, jax.tree.unflatten(form, parts)
            ends = schedule.log_snr(jnp.array([schedule.first, 1.0], jnp.float32))
            t = r if isinstance(schedule, LogLinear) else schedule.time(ends[0] + r * (ends[1] - ends[0]))
            output = prediction.evaluate(network, params, loss.noised(x0, eps, t, schedule), t, cond, schedule, kind)
            error = loss.weighted_mse(output, x0, eps, t, schedule, kind, loss.snr())
            return BITS * 0.5 * (ends[0] - ends[1]) * rate * error

        if isinstance(schedule, Learned):
            clock = jax.jvp(schedule.clock, (u,), (jnp.ones_like(u),))
            terms = squared_in(middle)((params, LogLinear(schedule.ends), x0, parts), clock)
        else:
            terms = middle((params, schedule, x0, parts), (u, jnp.ones_like(u)))
        return Bound(prior(schedule, x0), terms, last)

    return f
