"""The process that a model was trained on, and its authors' way of sampling from it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxdiff.diffusion import prediction
from jaxdiff.diffusion.continuous import VariancePreserving, namespace, softplus
from jaxdiff.diffusion.denoiser import Says
from jaxdiff.diffusion.schedule import Discrete, Schedule, Times
from jaxdiff.pretrained.schedulers.placing import Calls, Placing
from jaxdiff.sampling import SAMPLERS, Table, make_table
from jaxdiff.sampling import grid as grids
from jaxdiff.sampling.registry import INVERSIONS, lookup


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Levels(VariancePreserving):
    """sigma / alpha = sigma_max t, variance preserved; networks take its logarithm / 4 (CosXL, continuous Euler)."""

    sigma_max: Any

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        with np.errstate(divide="ignore"):
            return -2 * xp.log(self.sigma_max * t)

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        return xp.exp(-lam / 2) / self.sigma_max

    def timestep(self, t: Times) -> Times:
        return -self.log_snr(t) / 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Floored(Discrete):
    """Trained steps whose clock rounds down: levels between steps k and k + 1 lie at times between k and k + 1/2.

    So the nearest whole step of a time is the one below its level, which is what some classes tell the network. Between
    k + 1/2 and k + 1 the level is that of k + 1.
    """

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        step = t * self.steps - 1
        floor = xp.floor(step)
        return super().log_snr((xp.where(step < 0, step, floor + xp.minimum(2 * (step - floor), 1)) + 1) / self.steps)

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        step = super().time(lam) * self.steps - 1
        floor = xp.floor(step + 1e-6)
        return ((xp.where(step < 0, step, floor + xp.maximum(step - floor, 0) / 2) + 1) / self.steps)[()]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SineSquared(VariancePreserving):
    """sigma = sin(pi t / 2)^2, variance preserved; networks take the angle of (alpha, sigma) over pi / 2 (iPNDM).

    With 1 - sigma = sin(pi (1 - t) / 2)^2, neither end subtracts nearly equal numbers.
    """

    def log_snr(self, t: Times) -> Times:
        xp, t = namespace(t)
        sigma, rest = xp.sin(t * (np.pi / 2)) ** 2, xp.sin((1 - t) * (np.pi / 2)) ** 2
        with np.errstate(divide="ignore"):
            return xp.log(rest * (1 + sigma)) - 2 * xp.log(sigma)

    def time(self, log_snr: Times) -> Times:
        xp, lam = namespace(log_snr)
        sigma = xp.exp(-softplus(lam) / 2)
        rest = xp.exp(-softplus(-lam)) / (1 + sigma)
        return xp.atan2(sigma**0.5, rest**0.5) * (2 / np.pi)

    def timestep(self, t: Times) -> Times:
        xp, t = namespace(t)
        return xp.atan2(self.sigma(t), self.alpha(t)) * (2 / np.pi)


@dataclasses.dataclass(frozen=True)
class Process:
    """The process that a model was trained on, and its authors' way of sampling from it.

    Attributes:
      schedule: the noise.
      kind: what the network predicts.
      sampler: a name in `sampling.SAMPLERS` or `sampling.INVERSIONS`.
      grid: how a published scheduler places its calls; or the name of a grid in `sampling.grid.GRIDS`.
      options: the sampler's.
      clip: estimates of x0 are clipped to [-clip, clip]; None: not.
      threshold: dynamic thresholding instead: the quantile, and the most it may be.
      says: what the network says beside or instead of its prediction; see `diffusion.denoiser`.
    """

    schedule: Schedule
    kind: str
    sampler: str
    grid: Placing | str = Placing()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    clip: float | None = None
    threshold: tuple[float, float] | None = None
    says: Says = "prediction"

    @property
    def whole(self) -> bool:
        """Returns whether the network is called with the nearest trained step, while noise levels lie between."""
        return isinstance(self.grid, Placing) and self.grid.rounding == "nearest"

    def calls(self, steps: int) -> Calls:
        """Returns the grid of that many steps, and what the network is called with on it.

        Raises:
          ValueError: for steps that it cannot make on this schedule.
        """
        if isinstance(self.grid, Placing):
            return self.grid.calls(self.schedule, steps)
        times = grids.GRIDS[self.grid](self.schedule, steps)
        return Calls(times, self.schedule.timestep(times[:-1]))

    def times(self, steps: int) -> grids.Grid:
        """Returns the grid of that many steps.

        Raises:
          ValueError: as `calls`.
        """
        return self.calls(steps).times

    def start(self, times: grids.Grid) -> float:
        """Returns what unit noise is multiplied by to be the picture at times[0].

        That is sqrt(alpha^2 + sigma^2), the deviation of noisy data of unit variance; but published classes that work
        on noise levels leave the signal's share out where their grid starts at the last trained step, and those of
        flows add to it.
        """
        alpha, sigma = (float(f(np.asarray(times[:1]))[0]) for f in (self.schedule.alpha, self.schedule.sigma))
        if isinstance(self.grid, str):
            return float(np.hypot(alpha, sigma))
        if self.grid.way == "flow":
            return 1.0
        alone = self.grid.way in ("levels", "edm") and self.grid.spacing != "leading"
        return sigma if alone else float(np.hypot(alpha, sigma))

    @property
    def alone(self) -> bool:
        """Returns whether the class works on x / alpha."""
        return isinstance(self.grid, Placing) and self.grid.way == "levels"

    def table(self, times: grids.Grid, steps: int, **options: Any) -> Table:
        """Returns the sampler over the whole grid of `steps`, or over its end.

        Raises:
          ValueError: for an option that the sampler does not have, or times that it cannot walk.
        """
        options = {**self.options, **options}
        gap = self.grid.gap(self.schedule, steps) if isinstance(self.grid, Placing) else None
        if gap is not None and self.sampler in ("ddim", "ddim_inverse", "plms", "pndm"):
            options["gap"] = gap
        # what depends on the number of steps goes by that of the whole grid
        if options.get("lower_final", 0) is None:
            options["lower_final"] = steps < 15
        if options.get("skip"):
            options["skip"] = [n - steps + len(times) - 1 for n in options["skip"]]
        bounds = {"clip": self.clip, "threshold": self.threshold}
        table = make_table(self.sampler, self.schedule, len(times) - 1, times, **{**bounds, **options})
        if self.alone and times[-1] > 0:  # what they return there is x / alpha
            table = rescaled(table, 1 / float(self.schedule.alpha(times[-1:])[0]))
        return table

    def timesteps(self, calls: Calls, t: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Returns the timesteps that the network is called with at times t of a table over these calls.

        Between them, its own.
        """
        up = isinstance(self.grid, Placing) and self.grid.up
        known = calls.times[1:] if up else calls.times[:-1]
        nearest = np.abs(t[:, None] - known).argmin(axis=1)
        on = np.isclose(t, known[nearest], rtol=1e-9, atol=0)
        if self.sampler in ("kdpm2", "kdpm2_ancestral"):  # a middle call may be at the next one's level
            on[1::2] = False
        return np.where(on, calls.timesteps[nearest], self.schedule.timestep(t))


def rescaled(table: Table, factor: float) -> Table:
    """Returns the table whose result is multiplied by a number."""
    last = lambda x: np.concatenate([x[:-1], np.concatenate([x[-1:, :1] * factor, x[-1:, 1:]], axis=1)])
    raw = None if table.raw is None else last(table.raw)
    return dataclasses.replace(table, A=last(table.A), b=last(table.b), c=last(table.c), raw=raw)


def native(
    schedule: Schedule,
    kind: str,
    sampler: str = "ddim",
    grid: str | None = None,
    clip: float | None = None,
    options: Mapping[str, Any] = {},
    says: Says = "prediction",
) -> Process:
    """Returns the process of a model that was trained here, on any schedule.

    Args:
      schedule: the noise.
      kind: what the network predicts, one of `prediction.KINDS`.
      sampler: a name in `sampling.SAMPLERS`.
      grid: a name in `sampling.grid.GRIDS`; None: the sampler's own.
      clip: estimates of x0 are clipped to [-clip, clip]; None: not.
      options: the sampler's, such as eta.
      says: what the network says beside or instead of its prediction; see `diffusion.denoiser`.

    Raises:
      ValueError: for an unknown kind, sampler or grid, or a kind that this schedule does not allow.
    """
    prediction.check(kind, schedule)
    grid = grid or (INVERSIONS.get(sampler) or lookup("sampler", sampler, SAMPLERS)).grid
    lookup("grid", grid, grids.GRIDS)
    return Process(schedule, kind, sampler, grid, options=dict(options), clip=clip, says=says)
