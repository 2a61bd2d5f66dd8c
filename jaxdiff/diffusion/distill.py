"""Few-step students: consistency training and distillation, latent consistency, progressive distillation.

**Consistency** (Song et al. 2023, arXiv 2303.01469). A consistency function f maps every point of one probability-flow
trajectory to its start, f(x, smallest level) = x (`precondition.consistency`). It learns from neighbours t > s on a
grid,

    loss = w d(f(x_t, t), stop_gradient f(x_s, s)),

where x_s is either a teacher's ODE step from x_t (distillation) or, with no teacher, the same x0 and the same eps at s
(training): then x_t - x_s points along the expected direction. d is the pseudo-Huber distance sqrt(|a - b|^2 + c^2) - c
with c = 0.00054 sqrt(dimensions), and w = 1 / (t - s) in levels (Song & Dhariwal 2023, arXiv 2310.14189, which also has
f itself, not its average, on the right: pass the same parameters).

The grid is Karras': with position p from 0 (cleanest) to 1 and s = sigma / alpha, s(p)^(1/7) is linear in p. It has a
number of intervals that may grow while a run trains, so it is computed in the loss and no array of a fixed size.

**Latent consistency** (Luo et al. 2023, arXiv 2310.04378) distils a network of trained steps. Its function mixes the
estimate D of the network with its input,

    f(x_t, t) = c_skip x_t + c_out D(x_t, t),   c_skip = s^2 / (T^2 + s^2),   c_out = T / sqrt(T^2 + s^2),

with s = 0.5 and T = 10 timestep, so that f(x, 0) = x. Neighbours lie 1 / intervals apart, many trained steps, which one
DDIM step of the guided teacher skips; the distance is the mean of sqrt((a - b)^2 + c^2) - c over numbers.

**Progressive distillation** (Salimans & Ho 2022, arXiv 2202.00512). One DDIM step of the student from t to u does what
two of the teacher do, over s in the middle. The x0 that carries x_t to the teacher's x_u in one step is

    x0 = (x_u - (sigma_u / sigma_t) x_t) / (alpha_u - (sigma_u / sigma_t) alpha_t)                  (equation 44)

which becomes the student's target. Where the student's steps have become those of its teacher, the student is the
teacher of the next stage, with half as many steps (`stage`, `teacher`).

**Stages** of a run are a rule of its step, so the number of steps or intervals is a traced number and nothing compiles
again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.diffusion import loss, precondition, prediction, times
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule, namespace
from jaxdiff.typing import Cond, Denoise, Key, Network, Params


def ddim_step(x_t: Array, D: Array, schedule: Schedule, t: Float[Array, " b"], s: Float[Array, " b"]) -> Array:
    """Returns the deterministic step from t to s with this estimate of x0."""
    alpha, sigma, below, noise = (over_pixels(f(u), x_t) for u in (t, s) for f in (schedule.alpha, schedule.sigma))
    return below * D + noise * (x_t - alpha * D) / sigma


def consistency_function(
    network: Network, params: Params, cond: Cond, schedule: Schedule, sigma_min: float = 0.002
) -> Denoise:
    """Returns the denoiser of a consistency model: EDM's scalings, shifted to be the identity at `sigma_min`."""

    def denoise(x_t: Array, t: Array, aux: dict[str, Array]) -> Array:
        t = jnp.broadcast_to(t, x_t.shape[:1])
        alpha, sigma = over_pixels(schedule.alpha(t), x_t), over_pixels(schedule.sigma(t), x_t)
        skip, out, scale = precondition.consistency(alpha, sigma, sigma_min)
        return skip * x_t + out * network(params, scale * x_t, schedule.timestep(t), cond).astype(jnp.float32)

    return denoise


def karras_times(schedule: Schedule, position: Float[Array, " b"] | Float[np.ndarray, " b"], rho: float = 7.0) -> Any:
    """Returns the times at positions from 0, the schedule's least noisy time, to 1, along a grid even in s^(1/rho).

    Source: Karras et al. 2022, arXiv 2206.00364, equation 5.
    """
    low, high = _roots(schedule, rho)
    return schedule.time(-2 * rho * namespace(position)[0].log(low + position * (high - low)))


def log_normal_position(
    schedule: Schedule, u: Float[Array, " b"], mean: float = -1.1, std: float = 2.0, rho: float = 7.0
) -> Float[Array, " b"]:
    """Returns the quantile at u of the position whose log(sigma / alpha) is N(mean, std^2), cut off at both ends.

    Source: Song & Dhariwal 2023, arXiv 2310.14189, section 3.5.
    """
    low, high = _roots(schedule, rho)
    below, above = (jax.scipy.special.ndtr(jnp.float32((rho * np.log(a) - mean) / std)) for a in (low, high))
    s = jnp.exp(mean + std * times.normal_quantile(below + u * (above - below)))
    return (s ** (1 / rho) - low) / (high - low)


def _roots(schedule: Schedule, rho: float) -> tuple[float, float]:
    """Returns s^(1/rho) at the least and the most noisy time."""
    low, high = (float(np.exp(-schedule.log_snr(np.float64(t)) / (2 * rho))) for t in (schedule.first, 1.0))
    return low, high


def consistency(
    network: Network,
    schedule: Schedule,
    position: Callable[[Array], Array] = lambda u: u,
    huber: float = 0.00054,
) -> Callable[..., Array]:
    """Returns the loss of consistency training, or with a teacher of distillation, between neighbouring times.

    Args:
      network: F inside the consistency function.
      schedule: the process.
      position: u in (0, 1) -> where on the grid to train (`log_normal_position`); by default every interval alike.
      huber: c / sqrt(dimensions); towards infinity the distance becomes |a - b|^2 / (2 c).

    Returns:
      (params, target_params, x0 [b ...], u [b], cond, keys [b], intervals, teacher=None) -> loss [b]. `intervals` may
      be traced; `teacher` is a denoiser whose DDIM step makes the neighbour.
    """

    def f(
        params: Params,
        target_params: Params,
        x0: Array,
        u: Array,
        cond: Cond,
        keys: Key,
        intervals: Array | int,
        teacher: Denoise | None = None,
    ) -> Array:
        n = times.whole(position(u), intervals)
        t, s = (karras_times(schedule, (n + k) / intervals) for k in (1, 0))
        eps = loss.independent(keys, x0)
        x_t = loss.noised(x0, eps, t, schedule)
        x_s = (
            loss.noised(x0, eps, s, schedule)
            if teacher is None
            else ddim_step(x_t, teacher(x_t, t, {}), schedule, t, s)
        )
        mapped = consistency_function(network, params, cond, schedule)(x_t, t, {})
        wanted = consistency_function(network, target_params, cond, schedule)(x_s, s, {})
        square = ((mapped - jax.lax.stop_gradient(wanted)) ** 2).reshape(x0.shape[0], -1).sum(axis=1)
        c, level = huber * (x0.size / x0.shape[0]) ** 0.5, lambda time: jnp.exp(-schedule.log_snr(time) / 2)
        return square / (jnp.sqrt(square + c**2) + c) / (level(t) - level(s))

    return f


def latent_consistency(
    network: Network,
    schedule: Schedule,
    kind: str,
    intervals: int = 50,
    huber: float = 1e-3,
    scaling: float = 10.0,
    sigma_data: float = 0.5,
) -> Callable[..., tuple[Array, Array]]:
    """Returns the loss of latent consistency distillation, between points of a grid that skips trained steps.

    Args:
      network: the student.
      schedule: schedule of trained steps.
      kind: what the network outputs.
      intervals: intervals of the grid, which the sampler's steps are some of.
      huber: c of the distance.
      scaling: scaling of the timestep in the boundary condition.
      sigma_data: deviation of the data in the boundary condition.

    Returns:
      (params, target_params, teacher, x0 [b ...], u [b], cond, keys [b], target_cond=None) -> loss [b], f(x_t, t)
      [b ...]; `teacher` is a denoiser, guided, and `target_cond` the condition of the target, by default `cond`.

    Source: Luo et al. 2023, arXiv 2310.04378, algorithm 1.
    """
    prediction.check(kind, schedule)

    def mapped(params: Params, x: Array, t: Array, cond: Cond) -> Array:
        D = prediction.denoiser(network, params, cond, schedule, kind)(x, t, {})
        T = over_pixels(scaling * schedule.timestep(t), x)
        return sigma_data**2 / (T**2 + sigma_data**2) * x + T / jnp.sqrt(T**2 + sigma_data**2) * D

    def f(
        params: Params,
        target_params: Params,
        teacher: Denoise,
        x0: Array,
        u: Array,
        cond: Cond,
        keys: Key,
        target_cond: Cond | None = None,
    ) -> tuple[Array, Array]:
        n = times.whole(u, intervals)
        t, s = (n + 1) / intervals, jnp.maximum(n / intervals, schedule.first)
        x_t = loss.noised(x0, loss.independent(keys, x0), t, schedule)
        x_s = ddim_step(x_t, teacher(x_t, t, {}), schedule, t, s)
        wanted = mapped(target_params, x_s, s, cond if target_cond is None else target_cond)
        estimate = mapped(params, x_t, t, cond)
        error = estimate - jax.lax.stop_gradient(wanted)
        return loss.per_example(jnp.sqrt(error**2 + huber**2) - huber), estimate

    return f


def progressive(
    network: Network, schedule: Schedule, kind: str, weight: loss.Weight | None = None
) -> Callable[..., Array]:
    """Returns the loss of progressive distillation: one DDIM step of the student does what two of its teacher do.

    Args:
      network: the student.
      schedule: the process.
      kind: what the network outputs.
      weight: in x0 units; the paper's is `loss.truncated_snr`. None for the plain error of the output.

    Returns:
      (params, teacher, x0 [b ...], u [b], cond, keys [b], steps) -> loss [b]. `teacher` is a denoiser that samples in
      2 x steps; `steps`, which may be traced, are the student's.

    Source: Salimans & Ho 2022, arXiv 2202.00512, algorithm 2.
    """
    prediction.check(kind, schedule)

    def f(params: Params, teacher: Denoise, x0: Array, u: Array, cond: Cond, keys: Key, steps: Array | int) -> Array:
        i = times.whole(u, steps) + 1
        t, middle, below = i / steps, (i - 0.5) / steps, (i - 1) / steps
        alpha, sigma = over_pixels(schedule.alpha(t), x0), over_pixels(schedule.sigma(t), x0)
        x_t = loss.noised(x0, loss.independent(keys, x0), t, schedule)
        x_s = ddim_step(x_t, teacher(x_t, t, {}), schedule, t, middle)
        x_u = ddim_step(x_s, teacher(x_s, middle, {}), schedule, middle, below)
        ratio = over_pixels(schedule.sigma(below), x0) / sigma
        wanted = jax.lax.stop_gradient((x_u - ratio * x_t) / (over_pixels(schedule.alpha(below), x0) - ratio * alpha))
        output = prediction.evaluate(network, params, x_t, t, cond, schedule, kind)
        return loss.weighted_mse(
            output, wanted, prediction.to_eps(wanted, x_t, alpha, sigma), t, schedule, kind, weight
        )

    return f


def stage(step: Array | int, length: int, first: int, last: int) -> Array:
    """Returns the stage of a run after `step` updates: 0, and one more each `length`, until `last` is reached."""
    return jnp.clip(jnp.asarray(step, jnp.int32) // length, 0, round(abs(np.log2(last / first))))


def intervals(step: Array | int, length: int, first: int, last: int) -> Array:
    """Returns `first`, doubled or halved at each stage until it is `last`; a whole float32 number."""
    move = jnp.left_shift if last > first else jnp.right_shift
    return move(jnp.int32(first), stage(step, length, first, last)).astype(jnp.float32)


def teacher(params: Params, before: Params, step: Array | int, length: int, first: int, last: int) -> Params:
    """Returns the teacher of the update after `step`: `params` where a stage begins, else the one `before`."""
    begins = stage(step, length, first, last) > stage(jnp.asarray(step) - 1, length, first, last)
    return jax.tree.map(lambda new, old: jnp.where(begins, jax.lax.stop_gradient(new), old), params, before)
