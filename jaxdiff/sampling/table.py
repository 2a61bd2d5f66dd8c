"""A sampler as a table of coefficients, and what runs it.

Every published sampler is linear in the states and denoised estimates it keeps, so it is a table computed once on the
host in float64 from a schedule and a time grid. With K slots y [K, b, ...], slot 0 the point where the network is
evaluated next, one network call does

    D_n = denoise(y[0], t_n, aux_n)
    y   = A_n y + b_n D_n + c_n noise_n.

Solvers do not fill A, b, c by hand. A linear expression in slots, D and noise is a vector of K + 2 numbers, so with the
unit vectors for symbols (`symbols`) NumPy's own arithmetic on them IS the algebra: a solver writes its update in the
paper's letters, and `from_rows` splits the vectors into A, b and c. DDIM, whole:

    (x,), D, noise = symbols(1)
    rows = [[alpha_s * D + sigma_s * (x - alpha_t * D) / sigma_t] for each step]

Slots start as x_init and zeros. Img2img is a table for the tail of a grid (`grid.cut`), or the tail of a table (`cut`);
inversion is a table of the grid in reverse; padding a table with unused slots (`pad`) changes nothing but its shape,
which lets samplers of different families share one compiled program.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling.kernel import Kernel, Trajectory, drive, normal
from jaxdiff.typing import Denoise, Key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Table:
    """The coefficients of a sampler for N network calls with K slots; float64 NumPy on the host.

    Attributes:
      t: [N] the time of each call.
      A: [N, K, K] on the slots.
      b: [N, K] on the estimate of x0.
      c: [N, K] on the noise.
      aux: [N, ...] by name, what the denoiser is told at each call, such as the guidance scale.
    """

    t: Any
    A: Any
    b: Any
    c: Any
    aux: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def calls(self) -> int:
        """The number of network calls, N."""
        return self.t.shape[0]

    @property
    def slots(self) -> int:
        """The number of states kept, K."""
        return self.b.shape[1]


def symbols(slots: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The unit vectors that stand for the slots, D and noise in a solver's expressions."""
    *states, D, noise = np.eye(slots + 2)
    return states, D, noise


def from_rows(t: Sequence[float] | np.ndarray, rows: Any) -> Table:
    """A table from the time of each call and, for each [N, K, K + 2], the expression of every slot after it."""
    coefficients = np.array(rows, np.float64)
    if not np.all(np.isfinite(coefficients)):
        n = int(np.argmin(np.isfinite(coefficients).all(axis=(1, 2))))
        raise ValueError(
            f"the coefficients of call {n} at t = {t[n]} are not finite: this sampler divides by alpha or sigma there; "
            "start the grid below t = 1, or end it above t = 0"
        )
    return Table(np.asarray(t, np.float64), coefficients[..., :-2], coefficients[..., -2], coefficients[..., -1])


def with_aux(table: Table, **values: Any) -> Table:
    """The table with `values` told to the denoiser: [N, ...] arrays, or numbers for every call alike."""
    told = {name: np.broadcast_to(v, (table.calls,)) if np.ndim(v) == 0 else v for name, v in values.items()}
    for name, value in told.items():
        if len(value) != table.calls:
            raise ValueError(f"aux {name!r} has {len(value)} entries for {table.calls} network calls")
    return dataclasses.replace(table, aux={**table.aux, **told})


def pad(table: Table, slots: int) -> Table:
    """The same sampler with more slots, which stay zero."""
    more = slots - table.slots
    if more < 0:
        raise ValueError(f"cannot pad a table of {table.slots} slots to {slots}")
    return dataclasses.replace(
        table,
        A=np.pad(table.A, ((0, 0), (0, more), (0, more))),
        b=np.pad(table.b, ((0, 0), (0, more))),
        c=np.pad(table.c, ((0, 0), (0, more))),
    )


def cut(table: Table, start: int) -> Table:
    """The calls from `start` on.

    Raises:
      ValueError: if they need what earlier calls left behind; a table made for the tail of the grid starts by itself.
    """
    if not 0 <= start < table.calls:
        raise ValueError(f"cannot cut {start} of {table.calls} calls: at least one must be left")
    if np.any(table.A[start][:, 1:]):
        raise ValueError(
            f"call {start} reads what call {start - 1} left behind: make the table from grid.cut(times, ...) instead"
        )
    return jax.tree.map(lambda a: a[start:], table)


def start(schedule: Schedule, table: Table, noise: Float[Array, " b *s"]) -> Float[Array, " b *s"]:
    """The first picture from unit noise: sqrt(alpha^2 + sigma^2) noise, the prior of data with unit variance."""
    alpha, sigma = schedule.alpha(table.t[0]), schedule.sigma(table.t[0])
    return noise * (alpha**2 + sigma**2) ** 0.5


def noised(
    schedule: Schedule, table: Table, x0: Float[Array, " b *s"], noise: Float[Array, " b *s"]
) -> Float[Array, " b *s"]:
    """The first picture from a clean one (img2img): alpha x0 + sigma noise at the table's first time."""
    return schedule.alpha(table.t[0]) * x0 + schedule.sigma(table.t[0]) * noise


def _estimate(denoise: Denoise, x: Any, t: Any, aux: Any) -> tuple[Any, Any]:
    """What a denoiser says: x0, and what multiplies this call's noise, 1 unless it returns a pair."""
    out = denoise(x, t, aux)
    return out if isinstance(out, tuple) else (out, 1.0)


def table_kernel(denoise: Denoise, slots: int) -> Kernel:
    """The kernel whose rows are those of a table.

    `denoise` returns x0, or a pair (x0, scale) where the scale multiplies this call's noise (a learned variance).
    """

    def init(x: Array) -> Array:
        return jnp.zeros((slots, *x.shape), x.dtype).at[0].set(x)

    def step(y: Array, row: Table, keys: Key | None) -> tuple[Array, Array]:
        D, scale = _estimate(denoise, y[0], row.t, row.aux)
        D = D.astype(jnp.float32)
        # exact float32 products: the default on TPU and GPU would round the state to bfloat16 or TF32
        mixed = jnp.einsum("jk,k...->j...", row.A, y, precision=jax.lax.Precision.HIGHEST)
        mixed = mixed + over_pixels(row.b, y) * D[None]
        if keys is not None:
            # a step that adds none draws none; and a drawn one is not drawn again for every slot, as in one fused sum
            draw, none = lambda: normal(keys, y.shape[2:]), lambda: jnp.zeros(y.shape[1:], jnp.float32)
            noise = jax.lax.cond(jnp.any(row.c != 0), draw, none)
            mixed = mixed + over_pixels(row.c, y) * (scale * noise)[None]
        return mixed, D

    return Kernel(init, step, lambda y: y[0])


def run(
    table: Table, denoise: Denoise, x_init: Float[Array, " b *s"], key: Key | None, trajectory: bool = False
) -> Array | Trajectory:
    """Sample: from x_init at the table's first time to its last, one `lax.scan` with the table as its input.

    Args:
      table: the sampler.
      denoise: (x_t, t [], aux) -> x0; `prediction.denoiser`, guided or transformed as you like.
      x_init: the first picture (`start`, `noised`).
      key: one key, or keys [b] by which picture i depends on its own seed alone. None draws no noise at all, for a
        table without any.
      trajectory: also every intermediate picture and x0 estimate.

    Returns:
      The last picture in float32, or with `trajectory` all of them.

    Raises:
      ValueError: if the table wants noise and there is no key.
    """
    if key is None and not isinstance(table.c, jax.core.Tracer) and np.any(table.c):
        raise ValueError("this table adds noise (eta > 0, or a stochastic sampler): pass a key")
    table = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), table)
    return drive(table_kernel(denoise, table.slots), table, x_init, key, trajectory)


def replay(
    table: Table, denoise: Denoise, x_init: np.ndarray, noise: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The same recurrence in float64 NumPy on the host, for studying solvers: every x and x0 estimate [N, b, ...].

    `noise` [N, b, ...] is what each call adds; None for none.
    """
    y = np.zeros((table.slots, *x_init.shape))
    y[0] = x_init
    xs, x0s = [], []
    for n in range(table.calls):
        D, scale = _estimate(denoise, y[0], table.t[n], {name: value[n] for name, value in table.aux.items()})
        y = np.tensordot(table.A[n], y, 1) + np.multiply.outer(table.b[n], D)
        if noise is not None:
            y = y + np.multiply.outer(table.c[n], scale * noise[n])
        xs.append(y[0])
        x0s.append(D)
    return np.stack(xs), np.stack(x0s)
