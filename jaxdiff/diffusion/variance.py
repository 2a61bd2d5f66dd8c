"""Learned variances: a network that says how wide each ancestral step is (improved DDPM, arXiv 2102.09672).

The network's last axis holds its prediction and then v in [-1, 1] for each number, which places the variance of the
step between its two extremes (equation 15):

    log var = (v + 1)/2 log beta + (1 - v)/2 log var_small.

The simple loss says nothing about v. `hybrid` adds the bound's term of the step, through which v alone learns:

    L_hybrid = L_simple + 0.001 T L_i,    the mean of L_i's in D held fixed                          (equation 16)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.diffusion import guidance, loss, prediction
from jaxdiff.diffusion.bound import BITS, bin_log_prob, gaussian_kl, normal_log_prob, step
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Denoise, Estimate, Key, LearnedDenoise, Network, Params


def learned_log_variance(v: Any, log_small: Any, log_large: Any) -> Any:
    """Returns the logarithm of the variance between both extremes, at v in [-1, 1]."""
    return (v + 1) / 2 * log_large + (1 - v) / 2 * log_small


def learned_denoiser(
    network: Network, params: Params, cond: Cond, schedule: Schedule, kind: str, null: Cond | None = None
) -> Denoise | LearnedDenoise:
    """Returns the denoiser of a network with a learned variance, guided away from `null` if there is one.

    With the table `ddpm(..., variance="learned")` it returns an `Estimate`, whose scale is the standard deviation of
    this step's noise; with any other, whose `aux` names no variances, x0 alone.
    """
    prediction.check(kind, schedule)
    outputs = None if null is None else guidance.outputs(network, params, cond, null, schedule, kind)

    def denoise(x_t: Array, t: Array, aux: Any) -> Any:
        if outputs is None:
            y, v = jnp.split(prediction.evaluate(network, params, x_t, t, cond, schedule, kind), 2, axis=-1)
        else:
            (y, v), (away, _) = (jnp.split(out, 2, axis=-1) for out in outputs(x_t, t))
            y = guidance.guided(y, away, aux)
        x0 = prediction.to_x0(y, x_t, over_pixels(schedule.alpha(t), x_t), over_pixels(schedule.sigma(t), x_t), kind)
        if "log_variances" not in aux:
            return x0
        small, large = aux["log_variances"]
        return Estimate(x0, jnp.exp(learned_log_variance(v, small, large) / 2))

    return denoise


def hybrid(
    network: Network,
    schedule: Schedule,
    kind: str,
    steps: int = 1000,
    weight: loss.Weight | None = None,
    noise: loss.NoiseSampler = loss.independent,
    bound: float = 1e-3,
    bins: int | None = 256,
) -> Callable[[Params, Array, Array, Cond, Key], Array]:
    """Returns a function (params, x0 [b ...], t [b], cond, keys [b]) -> loss [b]: simple + bound x steps x L_i.

    Times are t = i / steps.

    Args:
      network: what is trained; its output has twice the channels of x0.
      schedule: the process.
      kind: what the first half of the output is.
      steps: T, the length of the chain.
      weight: weight of the simple loss, in x0 units; None for the plain error.
      noise: (keys, x0) -> eps.
      bound: how much the bound's terms count.
      bins: levels of the data; None for continuous data. See `bound`.

    Source: Nichol & Dhariwal 2021, arXiv 2102.09672, equation 16; its released code for the scale, and for bits.
    """
    prediction.check(kind, schedule)

    def f(params: Params, x0: Array, t: Array, cond: Cond, keys: Key) -> Array:
        i = jnp.round(t * steps)
        eps = noise(keys, x0)
        x_t = loss.noised(x0, eps, t, schedule)
        y, v = jnp.split(prediction.evaluate(network, params, x_t, t, cond, schedule, kind), 2, axis=-1)
        simple = loss.weighted_mse(y, x0, eps, t, schedule, kind, weight)
        alpha, sigma = over_pixels(schedule.alpha(t), x0), over_pixels(schedule.sigma(t), x0)
        D = jax.lax.stop_gradient(prediction.to_x0(y, x_t, alpha, sigma, kind))
        from_x, from_x0, small, large = (over_pixels(a, x0) for a in step(schedule, i, steps))
        log_var = learned_log_variance(v, small, large)
        kl = gaussian_kl(from_x * x_t + from_x0 * x0, small, from_x * x_t + from_x0 * D, log_var)
        first = -(normal_log_prob(x0, D, log_var) if bins is None else bin_log_prob(x0, D, log_var, bins))
        term = BITS * loss.per_example(jnp.where(over_pixels(i, x0) > 1, kl, first))
        return simple + bound * steps * term

    return f
