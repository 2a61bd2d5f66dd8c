"""Guidance: functions from denoisers to denoisers that steer a sample.

For one x_t every kind of output is the same affine function of the x0 estimate, so combining two outputs or two x0
estimates linearly gives the same. Guidance with scale g, 1 meaning off,

    D = D_bad + g (D_good - D_bad)

serves classifier-free guidance (bad: no condition, or a negative one; Ho & Salimans 2022, arXiv 2207.12598, with
w = g - 1), autoguidance (bad: a smaller or less trained network; Karras et al. 2024, arXiv 2406.02507) and perturbed
attention (bad: the same network with identity attention; Ahn et al. 2024, arXiv 2403.17377). The scale is read from
`aux["guidance"]` at each step, a number or one for each picture, so a change of scale or an interval (`interval`)
compiles nothing; absent, it is 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.diffusion import prediction
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Denoise, Network, Params


def _scale(aux: Any, name: str, x: Array, default: float = 1.0) -> Array:
    return prediction.over_pixels(jnp.asarray(aux.get(name, default), jnp.float32), x)


def classifier_free(network: Network, params: Params, cond: Cond, null: Cond, schedule: Schedule, kind: str) -> Denoise:
    """Classifier-free guidance with scale `aux["guidance"]`, both conditions in one doubled batch.

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
      ValueError: as `prediction.denoiser`, and if the two conditions do not have the same fields.
    """
    prediction.check(kind, schedule)
    if str(jax.tree.structure(cond)) != str(jax.tree.structure(null)):
        raise ValueError(f"cond and null must have the same fields, got {cond} and {null}")
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, jnp.broadcast_to(b, a.shape)]), cond, null)

    def denoise(x_t: Array, t: Array, aux: Any) -> Array:
        t2 = jnp.concatenate([jnp.broadcast_to(t, x_t.shape[:1])] * 2)
        y_cond, y_null = jnp.split(
            prediction.evaluate(network, params, jnp.concatenate([x_t, x_t]), t2, both, schedule, kind), 2
        )
        y = y_null + _scale(aux, "guidance", x_t) * (y_cond - y_null)
        if "rescale" in aux:
            axes, phi = tuple(range(1, y.ndim)), _scale(aux, "rescale", x_t)
            ratio = y_cond.std(axes, keepdims=True) / y.std(axes, keepdims=True)
            y = y * (phi * ratio + (1 - phi))
        alpha, sigma = (prediction.over_pixels(f(t), x_t) for f in (schedule.alpha, schedule.sigma))
        return prediction.to_x0(y, x_t, alpha, sigma, kind)

    return denoise
