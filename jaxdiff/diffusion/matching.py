"""Distribution matching distillation: a student is moved to where its teacher finds what it makes more likely.

A student G makes x of noise in one step, or in the last of a few. Of a noisy x_t = alpha x + sigma eps the teacher
knows the score of the data, s_real, and a second network, `fake`, which denoises what the student makes, that of the
student. The divergence KL(student || data) at time t has by the student's parameters the gradient

    E w_t alpha (s_fake(x_t) - s_real(x_t)) dx / dparams,     s = (alpha D - x_t) / sigma^2            (equation 7)

in which nothing of the networks that judge is differentiated. The weight w_t makes it alike at all times; with that of
the authors' code it is, by x,

    (D_fake(x_t) - D_real(x_t)) / mean |x - D_real(x_t)|.                                              (equation 8)

**Steps.** A student of k steps is called at times 1, (k - 1) / k, ..., 1 / k, and between two calls its estimate is
noised anew, as the samplers `consistency` and `lcm` do. In training it starts from what it made itself, not from noisy
data, so that it sees what it will see (DMD2, section 4.4). What the call at time i / k makes is judged at times from
(i - 1) / k, up to which it is noised, to i / k. All of one time is then made by one call, whose score the fake learns;
were it that of all calls together, they could make up for each other: the first one mode of the data, the rest others.

Sources: Yin et al. 2023, arXiv 2311.18828 (equations); Yin et al. 2024, arXiv 2405.14867 (DMD2: no regression, steps);
Fan et al. 2025, arXiv 2510.27684 (times of their own for each step).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.diffusion import draws, loss, prediction, times
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Discrete
from jaxdiff.typing import Cond, Denoise, Key, Network, Params

_JUDGED, _AGAIN = 2**16 + 2, 2**16 + 3  # beside the draws of a loss


class Matched(NamedTuple):
    """The two losses of a step, each of which moves its own network alone, and what was made.

    Attributes:
      student: half the mean square of the gradient, whose gradient by what was made is that gradient over its size.
      fake: the error of denoising what was made.
      made: the student's estimate.
    """

    student: Float[Array, " b"]
    fake: Float[Array, " b"]
    made: Float[Array, " b *s"]


def matching(
    network: Network,
    schedule: Discrete,
    kind: str,
    steps: int = 1,
    weight: loss.Weight | None = None,
    low: float = 0.02,
    high: float = 0.98,
) -> Callable[..., Matched]:
    """Returns the losses of distribution matching.

    Args:
      network: the student and the fake, a function of the parameters of either.
      schedule: the teacher's, of trained steps.
      kind: what the network outputs.
      steps: steps of the student.
      weight: of the fake's error, in x0 units; None for the plain error of its output.
      low: least time at which distributions are compared; nearer to data the scores are of single pictures.
      high: greatest such time.

    Returns:
      (params, fake, teacher, x0 [b ...], u [b], cond, fake_cond, keys [b]) -> `Matched`. Of x0 only the shape is read;
      u says which of the steps is trained; `teacher` is a denoiser, and `fake_cond` the condition of the fake network.
    """
    prediction.check(kind, schedule)
    stop = jax.lax.stop_gradient

    def f(
        params: Params, fake: Params, teacher: Denoise, x0: Array, u: Array, cond: Cond, fake_cond: Cond, keys: Key
    ) -> Matched:
        student = prediction.denoiser(network, params, cond, schedule, kind)
        i = times.whole(u, steps) + 1
        made = student(begun(student, schedule, steps, i, x0, keys), i / steps, {})
        judged = draws.fold(keys, _JUDGED)
        part = (i - 1 + draws.uniform(judged)) / steps
        t = times.steps(schedule.steps)(low + (high - low) * part)
        eps, alpha, sigma = loss.independent(judged, x0), schedule.alpha(t), schedule.sigma(t)
        x_t = loss.noised(stop(made), eps, t, schedule)
        output = prediction.evaluate(network, fake, x_t, t, fake_cond, schedule, kind)
        error = loss.weighted_mse(output, stop(made), eps, t, schedule, kind, weight)
        real = teacher(x_t, t, {})
        taken = prediction.to_x0(output, x_t, over_pixels(alpha, x0), over_pixels(sigma, x0), kind)
        scale = over_pixels(loss.per_example(jnp.abs(made - real)), x0)
        goal = stop(made - (taken - real) / jnp.maximum(scale, 1e-6))
        return Matched(loss.per_example((made - goal) ** 2) / 2, error, made)

    return f


def begun(student: Denoise, schedule: Discrete, steps: int, step: Array, x0: Array, keys: Key) -> Float[Array, " b *s"]:
    """Returns what the student starts its step from: noise, or what it made in the steps before, noised anew.

    Args:
      student: the student.
      schedule: its schedule.
      steps: steps in all.
      step: which one [b], from `steps`, the first to be made, down to 1.
      x0: of the shape of a batch.
      keys: keys [b].
    """
    scale = jnp.hypot(*(jnp.asarray(side(jnp.float32(1.0))) for side in (schedule.alpha, schedule.sigma)))
    x = chosen = scale * loss.independent(keys, x0)
    for n in range(steps - 1, 0, -1):
        before, t = (jnp.full(len(x0), m / steps, jnp.float32) for m in (n + 1, n))
        estimate = jax.lax.stop_gradient(student(x, before, {}))
        x = loss.noised(estimate, draws.noise_like(draws.fold(keys, _AGAIN + n), x0), t, schedule)
        chosen = jnp.where(over_pixels(step, x0) <= n, x, chosen)
    return chosen
