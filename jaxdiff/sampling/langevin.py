"""Langevin dynamics: NCSN's annealed sampler, and the predictor-corrector sampler of the score SDE.

A Langevin step at one noise level, x <- x + e score(x) + sqrt(2 e) noise, leaves the distribution of x_t as it is.
With score = (alpha D - x) / sigma^2 and a step size known in advance it is linear in x, D and the noise: annealed
Langevin is a table like any other (`annealed`).

The corrector of the score SDE chooses e from the norms of the noise and the score it just drew, which is not linear, so
predictor-corrector is a kernel of its own. Norms are those of each picture, where the released code has their mean over
the batch: a picture then depends on its own seed alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.grid import Grid, check
from jaxdiff.sampling.kernel import Kernel, Trajectory, drive, normal
from jaxdiff.sampling.table import Table, from_rows, symbols, table_kernel
from jaxdiff.typing import Denoise, Key


def annealed(schedule: Schedule, times: Grid, repeats: int = 100, step: float = 2e-5, denoise: bool = True) -> Table:
    """Returns the coefficients of annealed Langevin dynamics: `repeats` steps at every time but the last.

    At level s = sigma / alpha, in z = x / alpha: z <- z + a/2 score + sqrt(a) noise with a = step s^2 / s_min^2, s_min
    the level of the last time but one; then x is carried to the next level's alpha.

    Args:
      schedule: the process; NCSN's is `schedule.ve`.
      times: strictly decreasing; the last is where the result lies, 0 for data.
      repeats: T, steps a level.
      step: the epsilon of the paper: a at the smallest level.
      denoise: end with x = alpha D from one more call at the smallest level (Jolicoeur-Martineau et al. 2020).

    Raises:
      ValueError: if a step is as large as the level it explores (a > 2 s^2), which diverges.

    Source: Song & Ermon 2019, arXiv 1907.05600, algorithm 1.
    """
    times = check(times)
    (x,), D, noise = symbols(1)
    alpha, s = schedule.alpha(times), schedule.sigma(times) / schedule.alpha(times)
    relative = step / s[-2] ** 2
    if repeats < 1 or not 0 < relative < 2:
        raise ValueError(
            f"step = {step} and repeats = {repeats}: expected at least one repeat, and a step between 0 and "
            f"{2 * s[-2] ** 2:.3g}, twice the smallest level's variance"
        )
    t, rows = [], []
    for n in range(len(times) - 1):
        for _ in range(repeats):
            rows.append([x + relative / 2 * (alpha[n] * D - x) + alpha[n] * s[n] * np.sqrt(relative) * noise])
            t.append(times[n])
        rows[-1][0] = rows[-1][0] * (alpha[n + 1] / alpha[n])
    if denoise:
        rows[-1][0] = rows[-1][0] * (alpha[-2] / alpha[-1])
        rows.append([alpha[-1] * D])
        t.append(times[-2])
    return from_rows(t, rows)


def corrector(denoise: Denoise, schedule: Schedule, snr: float = 0.16) -> Callable[[Array, Array, Any, Key], Array]:
    """Returns a function (x, t, aux, keys [b]) -> x after one Langevin step.

    The step is e = 2 (snr |noise| / |score|)^2, picture by picture.

    Source: Song et al. 2021, arXiv 2011.13456, algorithms 4 and 5.
    """

    def step(x: Array, t: Array, aux: Any, keys: Key) -> Array:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        score = (alpha * denoise(x, t, aux) - x) / sigma**2
        noise = normal(keys, x.shape[1:])
        norm = lambda a: jnp.sqrt((a**2).reshape(a.shape[0], -1).sum(axis=1))
        e = over_pixels(2 * (snr * norm(noise) / norm(score)) ** 2, x)
        return x + e * score + jnp.sqrt(2 * e) * noise

    return step


def predictor_corrector(
    table: Table,
    denoise: Denoise,
    schedule: Schedule,
    x_init: Float[Array, " b *s"],
    key: Key,
    snr: float = 0.16,
    corrections: int = 1,
    trajectory: bool = False,
) -> Array | Trajectory:
    """Samples by a table's steps with Langevin corrections at each of its times, before the step.

    Args:
      table: the predictor, of one slot: `ddpm` is the paper's ancestral (reverse diffusion) predictor.
      denoise: (x, t, aux) -> x0.
      schedule: the process.
      x_init: the first picture.
      key: one key, or keys [b].
      snr: r, the wanted ratio of the score's step to its noise; 0.16 for VE, 0.01 to 0.16 for VP.
      corrections: M, network calls before each call of the table.
      trajectory: every step.

    Raises:
      ValueError: if the table has more than one slot in use.

    Source: Song et al. 2021, arXiv 2011.13456, algorithm 1.
    """
    if table.slots != 1:
        raise ValueError(f"a predictor keeps one state, this table keeps {table.slots}: use ddpm or ddim")
    base, correct = table_kernel(denoise, 1), corrector(denoise, schedule, snr)

    def step(y: Array, row: Table, keys: Key | None) -> tuple[Array, Array]:
        x = y[0]
        for m in range(corrections):
            x = correct(x, row.t, row.aux, jax.vmap(lambda k, m=m: jax.random.fold_in(k, m + 1))(keys))
        return base.step(x[None], row, jax.vmap(lambda k: jax.random.fold_in(k, 0))(keys))

    rows = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), table)
    return drive(Kernel(base.init, step, base.read), rows, x_init, key, trajectory)
