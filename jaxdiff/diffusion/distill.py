"""Few-step students: consistency training and distillation, progressive distillation.

**Consistency** (Song et al. 2023, arXiv 2303.01469). A consistency function f maps every point of one probability-flow
trajectory to its start, f(x, smallest level) = x (`precondition.consistency`). It learns from neighbours t > s on a
grid,

    loss = w d(f(x_t, t), stop_gradient f(x_s, s)),

where x_s is either a teacher's ODE step from x_t (distillation) or, with no teacher, the same x0 and the same eps at s
(training): then x_t - x_s points along the expected direction. d is |a - b|^2 or the pseudo-Huber distance
sqrt(|a - b|^2 + c^2) - c with c = 0.00054 sqrt(dimensions), and w = 1 / (t - s) in levels (Song & Dhariwal 2023, arXiv
2310.14189, which also has f itself, not its EMA, on the right: pass the same parameters).

**Progressive distillation** (Salimans & Ho 2022, arXiv 2202.00512). One DDIM step of the student from t to u does what
two of the teacher do, over s in the middle. The x0 that carries x_t to the teacher's x_u in one step is

    x0 = (x_u - (sigma_u / sigma_t) x_t) / (alpha_u - (sigma_u / sigma_t) alpha_t)                  (equation 44)

which becomes the student's target; the weight is max(SNR, 1) (`loss.truncated_snr`).
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.diffusion import loss, precondition, prediction
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Denoise, Key, Network, Params


def ddim_step(x_t: Array, D: Array, schedule: Schedule, t: Float[Array, " b"], s: Float[Array, " b"]) -> Array:
    """The deterministic step from t to s with this estimate of x0."""
    alpha, sigma, below, noise = (over_pixels(f(u), x_t) for u in (t, s) for f in (schedule.alpha, schedule.sigma))
    return below * D + noise * (x_t - alpha * D) / sigma


def consistency_function(
    network: Network, params: Params, cond: Cond, schedule: Schedule, sigma_min: float = 0.002
) -> Denoise:
    """The denoiser of a consistency model: EDM's scalings shifted so that it is the identity at level `sigma_min`."""

    def denoise(x_t: Array, t: Array, aux: dict[str, Array]) -> Array:
        t = jnp.broadcast_to(t, x_t.shape[:1])
        alpha, sigma = over_pixels(schedule.alpha(t), x_t), over_pixels(schedule.sigma(t), x_t)
        skip, out, scale = precondition.consistency(alpha, sigma, sigma_min)
        return skip * x_t + out * network(params, scale * x_t, schedule.timestep(t), cond).astype(jnp.float32)

    return denoise


def consistency(
    network: Network,
    schedule: Schedule,
    grid: Float[Array, " n"],
    teacher: Denoise | None = None,
    distance: Literal["huber", "square"] = "huber",
    sigma_min: float = 0.002,
) -> Callable[[Params, Params, Array, Cond, Key], Array]:
    """Consistency training, or with a teacher distillation, between neighbours of a falling grid of times.

    Args:
      network: F inside the consistency function.
      schedule: the process.
      grid: falling times; its last is the smallest level and not 0.
      teacher: a denoiser whose DDIM step makes the neighbour.
      distance: pseudo-Huber or squared.
      sigma_min: the level at which f is the identity.

    Returns:
      (params, target_params, x0 [b ...], cond, keys [b]) -> loss [b].

    Raises:
      ValueError: if the grid has fewer than two times.
    """
    if grid.shape[0] < 2:
        raise ValueError(f"consistency needs neighbours: a grid of at least 2 times, got {grid.shape[0]}")

    def f(params: Params, target_params: Params, x0: Array, cond: Cond, keys: Key) -> Array:
        times = jnp.asarray(grid, jnp.float32)
        pick = lambda key: jax.random.randint(key, (), 0, times.shape[0] - 1)
        n = jax.vmap(pick)(loss.fold(keys, loss.TIME))
        t, s = times[n], times[n + 1]
        eps = loss.noise_like(loss.fold(keys, loss.NOISE), x0)
        at = lambda u: over_pixels(schedule.alpha(u), x0) * x0 + over_pixels(schedule.sigma(u), x0) * eps
        x_t = at(t)
        x_s = at(s) if teacher is None else ddim_step(x_t, teacher(x_t, t, {}), schedule, t, s)
        mapped = consistency_function(network, params, cond, schedule, sigma_min)(x_t, t, {})
        wanted = consistency_function(network, target_params, cond, schedule, sigma_min)(x_s, s, {})
        square = ((mapped - jax.lax.stop_gradient(wanted)) ** 2).reshape(x0.shape[0], -1).sum(axis=1)
        if distance == "square":
            return square
        c, level = 0.00054 * (x0.size / x0.shape[0]) ** 0.5, lambda u: jnp.exp(-schedule.log_snr(u) / 2)
        return (jnp.sqrt(square + c**2) - c) / (level(t) - level(s))

    return f


def progressive(
    network: Network, schedule: Schedule, kind: str, steps: int, weight: loss.Weight | None = None
) -> Callable[[Params, Denoise, Array, Cond, Key], Array]:
    """Progressive distillation of a 2 x `steps` DDIM sampler into one of `steps`.

    Returns (params, teacher, x0 [b ...], cond, keys [b]) -> loss [b]; by default weighted by max(SNR, 1).

    Source: Salimans & Ho 2022, arXiv 2202.00512, algorithm 2.
    """
    prediction.check(kind, schedule)
    weight = weight or loss.truncated_snr()

    def f(params: Params, teacher: Denoise, x0: Array, cond: Cond, keys: Key) -> Array:
        i = jax.vmap(lambda key: jax.random.randint(key, (), 1, steps + 1))(loss.fold(keys, loss.TIME))
        t, s, u = i / steps, (i - 0.5) / steps, (i - 1) / steps
        alpha, sigma = over_pixels(schedule.alpha(t), x0), over_pixels(schedule.sigma(t), x0)
        x_t = alpha * x0 + sigma * loss.noise_like(loss.fold(keys, loss.NOISE), x0)
        x_s = ddim_step(x_t, teacher(x_t, t, {}), schedule, t, s)
        x_u = ddim_step(x_s, teacher(x_s, s, {}), schedule, s, u)
        ratio = over_pixels(schedule.sigma(u), x0) / sigma
        wanted = jax.lax.stop_gradient((x_u - ratio * x_t) / (over_pixels(schedule.alpha(u), x0) - ratio * alpha))
        output = prediction.evaluate(network, params, x_t, t, cond, schedule, kind)
        noise = prediction.to_eps(wanted, x_t, alpha, sigma)
        return loss.weighted_mse(output, wanted, noise, t, schedule, kind, weight)

    return f
