"""Kinds of network output, and their conversion to the estimate of x0 that everything else uses.

From x_t = alpha x0 + sigma eps, each kind of output is a linear function of (x0, eps), and x0 a linear function of the
output y and x_t:

    kind    y                          x0
    eps     eps                        (x_t - sigma y) / alpha
    x0      x0                         y
    v       alpha eps - sigma x0       (alpha x_t - sigma y) / (alpha^2 + sigma^2)
    score   -eps / sigma               (x_t + sigma^2 y) / alpha
    flow    eps - x0                   (x_t - sigma y) / (alpha + sigma)
    edm     (x0 - skip x_t) / out      skip x_t + out y                             (`precondition.edm`)

`slope` is |d x0 / d y|: an error of the output times the slope is the error of x0, which is how a weight on one is a
weight on the other (`loss`). eps and score say nothing about x0 where alpha is 0, so `check` refuses them there.
"""

import difflib
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.diffusion import precondition
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Denoise, Network, Params

KINDS = ("eps", "x0", "v", "score", "flow", "edm")


def check(kind: str, schedule: Schedule | None = None, time: float = 1.0) -> None:
    """Refuses an unknown kind, and one that divides by alpha on a schedule whose alpha is 0 at `time`.

    Raises:
      ValueError: says which kinds exist, or which would work.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.4)
        ordered = [*near, *(k for k in KINDS if k not in near)]
        raise ValueError(f"unknown prediction kind {kind!r}: expected one of {', '.join(ordered)}")
    if kind in ("eps", "score") and schedule is not None:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(schedule)):
            return
        with jax.ensure_compile_time_eval():
            alpha = float(schedule.alpha(np.float64(time)))
        if alpha == 0:
            raise ValueError(
                f"{kind} prediction divides by alpha, which is 0 at t = {time} on this schedule: train and sample with "
                "'v' or 'x0' instead"
            )


def target(x0: Any, eps: Any, alpha: Any, sigma: Any, kind: str) -> Any:
    """Returns what a network of this kind should output for x_t = alpha x0 + sigma eps; alpha and sigma broadcast."""
    check(kind)
    if kind == "eps":
        return eps
    if kind == "x0":
        return x0
    if kind == "v":
        return alpha * eps - sigma * x0
    if kind == "score":
        return -eps / sigma
    if kind == "flow":
        return eps - x0
    skip, out, _ = precondition.edm(alpha, sigma)
    return (x0 - skip * (alpha * x0 + sigma * eps)) / out


def to_x0(prediction: Any, x_t: Any, alpha: Any, sigma: Any, kind: str) -> Any:
    """Returns the estimate of x0 that an output of this kind stands for; alpha and sigma broadcast."""
    check(kind)
    if kind == "eps":
        return (x_t - sigma * prediction) / alpha
    if kind == "x0":
        return prediction
    if kind == "v":
        return (alpha * x_t - sigma * prediction) / (alpha**2 + sigma**2)
    if kind == "score":
        return (x_t + sigma**2 * prediction) / alpha
    if kind == "flow":
        return (x_t - sigma * prediction) / (alpha + sigma)
    skip, out, _ = precondition.edm(alpha, sigma)
    return skip * x_t + out * prediction


def slope(alpha: Any, sigma: Any, kind: str) -> Any:
    """Returns |d x0 / d prediction|."""
    check(kind)
    if kind == "eps":
        return sigma / alpha
    if kind == "x0":
        return 1 + 0 * sigma
    if kind == "v":
        return sigma / (alpha**2 + sigma**2)
    if kind == "score":
        return sigma**2 / alpha
    if kind == "flow":
        return sigma / (alpha + sigma)
    return precondition.edm(alpha, sigma).out


def to_eps(x0: Any, x_t: Any, alpha: Any, sigma: Any) -> Any:
    """Returns the noise that goes with an estimate of x0."""
    return (x_t - alpha * x0) / sigma


def over_pixels(values: Float[Array, " *b"], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `values` [] or [b] with as many unit axes as it takes to multiply x [b, ...]."""
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


def evaluate(
    network: Network, params: Params, x_t: Array, t: Float[Array, " *t"], cond: Cond, schedule: Schedule, kind: str
) -> Array:
    """Calls the network at x_t [b, ...] and t ([] or [b]), in float32: scales its input (edm) and names its time."""
    t = jax.numpy.broadcast_to(t, x_t.shape[:1])
    if kind == "edm":
        x_t = x_t * over_pixels(precondition.edm(schedule.alpha(t), schedule.sigma(t)).scale, x_t)
    return network(params, x_t, schedule.timestep(t), cond).astype(jax.numpy.float32)


def denoiser(network: Network, params: Params, cond: Cond, schedule: Schedule, kind: str) -> Denoise:
    """Returns a function (x_t, t, aux) -> x0 in float32: the one form in which samplers know a network.

    Raises:
      ValueError: if the kind is unknown, or divides by an alpha that is 0 at t = 1 on this schedule.
    """
    check(kind, schedule)

    def denoise(x_t: Array, t: Array, aux: Any) -> Array:
        y = evaluate(network, params, x_t, t, cond, schedule, kind)
        return to_x0(y, x_t, over_pixels(schedule.alpha(t), x_t), over_pixels(schedule.sigma(t), x_t), kind)

    return denoise
