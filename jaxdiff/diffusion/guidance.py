"""Guidance: functions from denoisers to denoisers that steer a sample.

For one x_t every kind of output is the same affine function of the x0 estimate, so combining two outputs or two x0
estimates linearly gives the same. Guidance with scale g, 1 meaning off,

    D = D_bad + g (D_good - D_bad)

serves classifier-free guidance (bad: no condition, or a negative one; Ho & Salimans 2022, arXiv 2207.12598, with w = g
- 1), autoguidance (bad: a smaller or less trained network; Karras et al. 2024, arXiv 2406.02507) and perturbed
attention (bad: the same network with identity attention; Ahn et al. 2024, arXiv 2403.17377). `classifier_free` makes
one doubled batch of the two, `contrast` takes any two denoisers.

A gradient of log p(y | x_t) adds to the score, hence sigma^2 / alpha times it to D (Tweedie). A classifier says
log p(y | x_t) itself. For a measurement y = A(x0) of the picture, x0 given x_t is taken for N(D, sigma^2 / alpha^2), so
log p(y | x_t) = -|y - A(D(x_t))|^2 alpha^2 / (2 sigma^2) and D moves by -alpha / 2 times the gradient of |y - A(D)|^2
(reconstruction guidance, Ho et al. 2022, arXiv 2204.03458, equation 7).

Scales are read from `aux` at each step, a number or one for each picture, so a change of scale or an interval of steps
(`interval`) compiles nothing; absent, they are 1. Transforms stack: `static_threshold(1.0)(inpaint(x0,
mask)(denoise))`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.diffusion import prediction
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Denoise, Estimate, LearnedDenoise, Network, Params, Transform


def _scale(aux: Any, name: str, x: Array, default: float = 1.0) -> Array:
    return prediction.over_pixels(jnp.asarray(aux.get(name, default), jnp.float32), x)


def outputs(
    network: Network, params: Params, cond: Cond, null: Cond, schedule: Schedule, kind: str
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Returns a function (x_t, t) -> the network's outputs for both conditions, computed in one doubled batch.

    Raises:
      ValueError: as `prediction.denoiser`, and if the two conditions do not have the same fields.
    """
    prediction.check(kind, schedule)
    if str(jax.tree.structure(cond)) != str(jax.tree.structure(null)):
        raise ValueError(f"cond and null must have the same fields, got {cond} and {null}")
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, jnp.broadcast_to(b, a.shape)]), cond, null)

    def evaluate(x_t: Array, t: Array) -> tuple[Array, Array]:
        t2 = jnp.concatenate([jnp.broadcast_to(t, x_t.shape[:1])] * 2)
        y = prediction.evaluate(network, params, jnp.concatenate([x_t, x_t]), t2, both, schedule, kind)
        y_cond, y_null = jnp.split(y, 2)
        return y_cond, y_null

    return evaluate


def guided(y_cond: Array, y_null: Array, aux: Any) -> Array:
    """Returns `y_null` + g (`y_cond` - `y_null`) with g = `aux["guidance"]`, rescaled by `aux["rescale"]`."""
    y = y_null + _scale(aux, "guidance", y_cond) * (y_cond - y_null)
    if "rescale" in aux:
        axes, phi = tuple(range(1, y.ndim)), _scale(aux, "rescale", y)
        deviation = y.std(axes, keepdims=True)
        # an output that is the same everywhere, as an untrained network's, has nothing to rescale
        ratio = y_cond.std(axes, keepdims=True) / jnp.where(deviation > 0, deviation, 1.0)
        y = y * (phi * ratio + (1 - phi))
    return y


def classifier_free(network: Network, params: Params, cond: Cond, null: Cond, schedule: Schedule, kind: str) -> Denoise:
    """Guides without a classifier, scale `aux["guidance"]`, both conditions in one doubled batch.

    With `aux["rescale"]` = phi the guided output is first scaled towards the standard deviation of the conditional one,
    picture by picture: y <- (phi std(y_cond) / std(y) + 1 - phi) y (Lin et al. 2023, arXiv 2305.08891, equation 16).

    Args:
      network: its output is combined before it is turned into x0.
      params: the network's.
      cond: what to show.
      null: what to keep away from: the empty condition, or a negative one. Same fields and shapes as `cond`.
      schedule: the process.
      kind: what the network outputs.

    Raises:
      ValueError: as `outputs`.
    """
    both = outputs(network, params, cond, null, schedule, kind)

    def denoise(x_t: Array, t: Array, aux: Any) -> Array:
        y = guided(*both(x_t, t), aux)
        alpha, sigma = (prediction.over_pixels(f(t), x_t) for f in (schedule.alpha, schedule.sigma))
        return prediction.to_x0(y, x_t, alpha, sigma, kind)

    return denoise


def contrast(good: Denoise, bad: Denoise) -> Denoise:
    """Returns `bad` + scale (`good` - `bad`), scale `aux["guidance"]`: autoguidance or perturbed attention."""

    def denoise(x_t: Array, t: Array, aux: Any) -> Array:
        away = bad(x_t, t, aux)
        return away + _scale(aux, "guidance", x_t) * (good(x_t, t, aux) - away)

    return denoise


def interval(times: Float[np.ndarray, " n"], guidance: float, low: float, high: float) -> Float[np.ndarray, " n"]:
    """Returns the scale of each call, `guidance` at times in [low, high] and 1 outside; give it to `sampling.with_aux`.

    Source: Kynkaanniemi et al. 2024, arXiv 2404.07724.
    """
    if not low <= high:
        raise ValueError(f"low = {low} is above high = {high}: expected an interval of times")
    return np.where((times >= low) & (times <= high), guidance, 1.0)


def keep_scale(transform: Transform) -> Callable[[LearnedDenoise], LearnedDenoise]:
    """Applies a transform to a denoiser with a learned variance: it changes x0, and the scale stays the network's.

    The network is named twice in the result, for x0 and for the scale; compiled, that is one evaluation.
    """

    def transformed(denoise: LearnedDenoise) -> LearnedDenoise:
        x0 = transform(lambda x_t, t, aux: denoise(x_t, t, aux).x0)
        return lambda x_t, t, aux: Estimate(x0(x_t, t, aux), denoise(x_t, t, aux).scale)

    return transformed


def static_threshold(limit: float = 1.0) -> Transform:
    """Clips the x0 estimate to [-limit, limit]."""
    return lambda denoise: lambda x_t, t, aux: jnp.clip(denoise(x_t, t, aux), -limit, limit)


def dynamic_threshold(quantile: float = 0.995, ceiling: float = jnp.inf) -> Transform:
    """Clips each picture's x0 estimate to the quantile s of its absolute values, if s > 1, and divides by s.

    Source: Saharia et al. 2022, arXiv 2205.11487, section 2.3.
    """

    def transform(denoise: Denoise) -> Denoise:
        def clipped(x_t: Array, t: Array, aux: Any) -> Array:
            D = denoise(x_t, t, aux)
            s = jnp.quantile(jnp.abs(D.reshape(D.shape[0], -1)), quantile, axis=1)
            s = prediction.over_pixels(jnp.clip(s, 1.0, ceiling), D)
            return jnp.clip(D, -s, s) / s

        return clipped

    return transform


def inpaint(known: Float[Array, "b h w c"], mask: Float[Array, "b h w 1"]) -> Transform:
    """Puts the known picture where `mask` is 0; the network's estimate stays where it is 1."""

    def transform(denoise: Denoise) -> Denoise:
        new = jnp.broadcast_to(mask, known.shape)
        return lambda x_t, t, aux: new * denoise(x_t, t, aux) + (1 - new) * known

    return transform


def classifier(log_prob: Callable[[Array, Array], Array], schedule: Schedule) -> Transform:
    """Adds the gradient of a classifier to the score, times `aux["classifier"]`.

    `log_prob` (x_t [b ...], t) -> [b] is log p(y | x_t) of each picture's wanted y.

    Source: Dhariwal & Nichol 2021, arXiv 2105.05233, algorithm 2.
    """

    def transform(denoise: Denoise) -> Denoise:
        def guided(x_t: Array, t: Array, aux: Any) -> Array:
            gradient = jax.grad(lambda x: log_prob(x, t).sum())(x_t)
            ratio = prediction.over_pixels(schedule.sigma(t) ** 2 / schedule.alpha(t), x_t)
            return denoise(x_t, t, aux) + _scale(aux, "classifier", x_t) * ratio * gradient

        return guided

    return transform


def reconstruction(measure: Callable[[Array], Array], observed: Array, schedule: Schedule) -> Transform:
    """Pulls towards pictures whose measurement is `observed`, times `aux["reconstruction"]`.

    Differentiates the network.

    `measure` (x0 [b ...]) -> [b ...] is any differentiable function: a blur, a mask, a smaller picture.

    Source: Ho et al. 2022, arXiv 2204.03458, equation 7; Chung et al. 2023 (DPS), arXiv 2209.14687.
    """

    def transform(denoise: Denoise) -> Denoise:
        def guided(x_t: Array, t: Array, aux: Any) -> Array:
            def misfit(x: Array) -> tuple[Array, Array]:
                D = denoise(x, t, aux)
                return ((observed - measure(D)) ** 2).sum(), D

            gradient, D = jax.grad(misfit, has_aux=True)(x_t)
            half_alpha = prediction.over_pixels(schedule.alpha(t), x_t) / 2
            return D - _scale(aux, "reconstruction", x_t) * half_alpha * gradient

        return guided

    return transform
