"""Likelihood by the probability-flow ODE, with an adaptive solver (diffrax, the `ode` extra).

Along the ODE x moves as alpha D + sigma eps does with D and eps held (`schedule`). With log-SNR for time, in which
every schedule is smooth,

    dx / dlambda = alpha' D + sigma' (x - alpha D) / sigma.

The density changes by the divergence on the way: d log p(x) / dlambda = -div (dx / dlambda). Walking from data to
noise,

    log p(x0) = log N(x_1; 0, alpha_1^2 + sigma_1^2) + int div dlambda + d log alpha_first,

the last because the walk starts at alpha x0 a little above t = 0, where nothing is infinite. The divergence is the
exact trace of the Jacobian, d products with it, or Hutchinson's unbiased v^T J v with random signs v, one product
(Grathwohl et al. 2019, arXiv 1810.01367; Song et al. 2021, arXiv 2011.13456, equations 39 and 40).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Denoise, Key


def velocity(denoise: Denoise, schedule: Schedule, x: Float[Array, " b *s"], log_snr: Float[Array, ""]) -> Array:
    """Returns the slope dx / dlambda of the probability-flow ODE."""

    def scales(lam: Array) -> tuple[Array, Array]:
        t = schedule.time(lam)
        return schedule.alpha(t), schedule.sigma(t)

    (alpha, sigma), (d_alpha, d_sigma) = jax.jvp(scales, (log_snr,), (jnp.ones_like(log_snr),))
    D = denoise(x, schedule.time(log_snr), {})
    return d_alpha * D + d_sigma * (x - alpha * D) / sigma


def log_likelihood(
    denoise: Denoise,
    schedule: Schedule,
    x0: Float[Array, " b *s"],
    keys: Key | None = None,
    divergence: Literal["exact", "hutchinson"] = "hutchinson",
    first: float = 1e-5,
    last: float = 1.0,
    tolerance: float = 1e-5,
) -> Float[Array, " b"]:
    """Returns the log-likelihood of each example in nats, as a density.

    Args:
      denoise: (x, t, aux) -> x0.
      schedule: the process; it must have alpha > 0 at `last`.
      x0: the data.
      keys: keys [b], for Hutchinson's signs.
      divergence: the exact trace, or an unbiased estimate.
      first: the time where the walk starts.
      last: the time where it ends, in noise.
      tolerance: tolerance of the solver, relative and absolute, a step.

    Raises:
      ImportError: without diffrax.
      ValueError: for Hutchinson without keys.
    """
    try:
        import diffrax
    except ImportError as error:
        raise ImportError("likelihood by ODE needs diffrax: pip install 'jaxdiff[ode]'") from error
    if divergence == "hutchinson" and keys is None:
        raise ValueError("Hutchinson's estimate draws random signs: pass keys [b], or divergence='exact'")
    size = x0[0].size
    signs = keys is not None and jax.vmap(lambda k: jax.random.rademacher(k, x0.shape[1:], jnp.float32))(keys)
    summed = lambda a: a.reshape(a.shape[0], -1).sum(axis=1)

    def slope(lam: Any, state: Any, _: Any) -> Any:
        move = lambda x: velocity(denoise, schedule, x, lam)
        if divergence == "hutchinson":
            v, Jv = jax.jvp(move, (state[0],), (signs,))
            return v, summed(Jv * signs)
        v, product = jax.linearize(move, state[0])
        basis = jnp.eye(size, dtype=jnp.float32).reshape(size, 1, *x0.shape[1:])
        along = lambda e: summed(product(jnp.broadcast_to(e, x0.shape)) * jnp.broadcast_to(e, x0.shape))
        return v, jax.lax.map(along, basis).sum(axis=0)

    t = jnp.array([first, last], jnp.float32)
    ends, alpha, sigma = schedule.log_snr(t), schedule.alpha(t), schedule.sigma(t)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        diffrax.Tsit5(),
        t0=ends[0],
        t1=ends[1],
        dt0=None,
        y0=(alpha[0] * x0, jnp.zeros(x0.shape[0])),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=4096,
    )
    x1, gained = solution.ys[0][-1], solution.ys[1][-1]
    variance = alpha[1] ** 2 + sigma[1] ** 2
    prior = -0.5 * (summed(x1**2) / variance + size * jnp.log(2 * jnp.pi * variance))
    return prior + gained + size * jnp.log(alpha[0])
