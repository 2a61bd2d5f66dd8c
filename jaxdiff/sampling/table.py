"""A sampler as a table of coefficients, and what runs it.

Every published sampler is linear in the states and denoised estimates it keeps, so it is a table computed once on the
host in float64 from a schedule and a time grid. With K slots y [K, b, ...], slot 0 the point where the network is
evaluated next, one network call does

    D_n = denoise(y[0], t_n, aux_n)
    y   = A_n y + b_n D_n + c_n noise_n.

Where estimates are kept in bounds (`clipped`), D_n is the bounded one, and a step that wants the network's own estimate
as well, as DDIM does for eps, has one more term, raw_n times it.

Solvers do not fill A, b, c by hand. A linear expression in slots, D, noise and the raw estimate is a vector of K + 3
numbers, so with the unit vectors for symbols (`symbols`, `unbounded`) NumPy's own arithmetic on them IS the algebra: a
solver writes its update in the paper's letters, and `from_rows` splits the vectors into A, b and c. DDIM, whole:

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
from jaxdiff.sampling import bounds
from jaxdiff.sampling.kernel import Kernel, Trajectory, drive, normal
from jaxdiff.typing import Denoise, Estimate, Key, LearnedDenoise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Table:
    """The coefficients of a sampler for N network calls with K slots; float64 NumPy on the host.

    Attributes:
      t: [N] the time of each call.
      A: [N, K, K] on the slots.
      b: [N, K] on the estimate of x0.
      c: [N, K] on the noise.
      aux: [N, ...] by name, what the denoiser gets at each call, such as the guidance scale.
      raw: [N, K] on the estimate before it was bounded; None where nothing is bounded.
      bounds: [N] by name, how estimates are bounded (`bounds.apply`); None: not at all.
    """

    t: Any
    A: Any
    b: Any
    c: Any
    aux: dict[str, Any] = dataclasses.field(default_factory=dict)
    raw: Any = None
    bounds: dict[str, Any] | None = None

    @property
    def calls(self) -> int:
        """Returns the number of network calls, N."""
        return self.t.shape[0]

    @property
    def slots(self) -> int:
        """Returns the number of states kept, K."""
        return self.b.shape[1]


def symbols(slots: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Returns the unit vectors that stand for the slots, D and noise in a solver's expressions."""
    *states, D, noise, _ = np.eye(slots + 3)
    return states, D, noise


def unbounded(slots: int) -> np.ndarray:
    """Returns the unit vector that stands for the network's own estimate, where D is the bounded one."""
    return np.eye(slots + 3)[-1]


def from_rows(t: Sequence[float] | np.ndarray, rows: Any) -> Table:
    """Returns a table from the time of each call and, for each [N, K, K + 3], the expression of every slot after it."""
    coefficients = np.array(rows, np.float64)
    if not np.all(np.isfinite(coefficients)):
        n = int(np.argmin(np.isfinite(coefficients).all(axis=(1, 2))))
        raise ValueError(
            f"the coefficients of call {n} at t = {t[n]} are not finite: this sampler divides by alpha or sigma there; "
            "start the grid below t = 1, or end it above t = 0"
        )
    A, (b, c, raw) = coefficients[..., :-3], np.moveaxis(coefficients[..., -3:], -1, 0)
    return Table(np.asarray(t, np.float64), A, b, c, raw=raw if raw.any() else None)


def clipped(table: Table, clip: float | None, threshold: tuple[float, float] | None = None) -> Table:
    """Returns the table whose estimates are kept in bounds, or, with neither, in none.

    Args:
      table: the sampler.
      clip: estimates are clipped to [-clip, clip].
      threshold: instead, dynamic thresholding: the quantile, and the most it may be.

    Raises:
      ValueError: for a clip that is not positive, or a quantile outside (0, 1].
    """
    raw = np.zeros_like(table.b) if table.raw is None else table.raw
    if clip is None and threshold is None:  # both estimates are one
        return dataclasses.replace(table, b=table.b + raw, raw=None, bounds=None)
    return dataclasses.replace(table, raw=raw, bounds=bounds.make(table.calls, clip, threshold))


def with_aux(table: Table, **values: Any) -> Table:
    """Returns the table that gives `values` to the denoiser: [N, ...] arrays, or numbers for every call alike."""
    columns = {name: np.broadcast_to(v, (table.calls,)) if np.ndim(v) == 0 else v for name, v in values.items()}
    for name, value in columns.items():
        if len(value) != table.calls:
            raise ValueError(f"aux {name!r} has {len(value)} entries for {table.calls} network calls")
    return dataclasses.replace(table, aux={**table.aux, **columns})


def pad(table: Table, slots: int) -> Table:
    """Returns the same sampler with more slots, which stay zero."""
    more = slots - table.slots
    if more < 0:
        raise ValueError(f"cannot pad a table of {table.slots} slots to {slots}")
    return dataclasses.replace(
        table,
        A=np.pad(table.A, ((0, 0), (0, more), (0, more))),
        b=np.pad(table.b, ((0, 0), (0, more))),
        raw=None if table.raw is None else np.pad(table.raw, ((0, 0), (0, more))),
        c=np.pad(table.c, ((0, 0), (0, more))),
    )


def cut(table: Table, start: int) -> Table:
    """Returns the calls from `start` on.

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
    """Scales unit noise to the first picture: sqrt(alpha^2 + sigma^2) noise, the prior of data of unit variance."""
    alpha, sigma = schedule.alpha(table.t[0]), schedule.sigma(table.t[0])
    return noise * (alpha**2 + sigma**2) ** 0.5


def noised(
    schedule: Schedule, table: Table, x0: Float[Array, " b *s"], noise: Float[Array, " b *s"]
) -> Float[Array, " b *s"]:
    """Returns the first picture from a clean one (img2img): alpha x0 + sigma noise at the table's first time."""
    return schedule.alpha(table.t[0]) * x0 + schedule.sigma(table.t[0]) * noise


def _read(out: Any, row: Table) -> tuple[Any, Any, Any]:
    """Returns x0, x0 within the row's bounds, and the scale of this call's noise, from a denoiser's output."""
    x0, scale = out if isinstance(out, Estimate) else (out, None)
    return x0, x0 if row.bounds is None else bounds.apply(x0, row.bounds), scale


def table_kernel(denoise: Denoise | LearnedDenoise, slots: int) -> Kernel:
    """Returns the kernel whose rows are those of a table; a `LearnedDenoise` scales the noise of its calls."""

    def init(x: Array) -> Array:
        return jnp.zeros((slots, *x.shape), x.dtype).at[0].set(x)

    def step(y: Array, row: Table, keys: Key | None) -> tuple[Array, Array]:
        said = jax.tree.map(lambda value: value.astype(jnp.float32), denoise(y[0], row.t, row.aux))
        own, D, scale = _read(said, row)
        # exact float32 products: the default on TPU and GPU would round the state to bfloat16 or TF32
        mixed = jnp.einsum("jk,k...->j...", row.A, y, precision=jax.lax.Precision.HIGHEST)
        mixed = mixed + over_pixels(row.b, y) * D[None]
        if row.raw is not None:
            mixed = mixed + over_pixels(row.raw, y) * own[None]
        if keys is not None:
            # a step that adds none draws none; and a drawn one is not drawn again for every slot, as in one fused sum
            draw, none = lambda: normal(keys, y.shape[2:]), lambda: jnp.zeros(y.shape[1:], jnp.float32)
            noise = jax.lax.cond(jnp.any(row.c != 0), draw, none)
            noise = noise if scale is None else scale * noise
            mixed = mixed + over_pixels(row.c, y) * noise[None]
        return mixed, D

    return Kernel(init, step, lambda y: y[0])


def run(
    table: Table,
    denoise: Denoise | LearnedDenoise,
    x_init: Float[Array, " b *s"],
    key: Key | None,
    trajectory: bool = False,
) -> Array | Trajectory:
    """Samples from x_init at the table's first time to its last, one `lax.scan` with the table as its input.

    Args:
      table: the sampler.
      denoise: (x_t, t [], aux) -> x0; `prediction.denoiser`, guided or transformed as you like. Or one with a learned
        variance, which returns an `Estimate`.
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
    table: Table, denoise: Denoise | LearnedDenoise, x_init: np.ndarray, noise: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Runs the same recurrence in float64 NumPy on the host, for studying solvers: every x and x0 [N, b, ...].

    `noise` [N, b, ...] is what each call adds; None for none.
    """
    y = np.zeros((table.slots, *x_init.shape))
    y[0] = x_init
    xs, x0s = [], []
    for n in range(table.calls):
        row = jax.tree.map(lambda value, n=n: value[n], table)
        own, D, scale = _read(denoise(y[0], row.t, row.aux), row)
        y = np.tensordot(row.A, y, 1) + np.multiply.outer(row.b, D)
        if row.raw is not None:
            y = y + np.multiply.outer(row.raw, own)
        if noise is not None:
            y = y + np.multiply.outer(row.c, noise[n] if scale is None else scale * noise[n])
        xs.append(y[0])
        x0s.append(D)
    return np.stack(xs), np.stack(x0s)
