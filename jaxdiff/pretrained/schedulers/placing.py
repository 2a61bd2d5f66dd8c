"""The grids of published schedulers, and the timesteps that they pass to the network.

Their classes place calls in these ways:

- steps: whole trained steps (DDPM, DDIM, PNDM);
- levels: the same, but `linspace` has fractional ones, between which sigma is interpolated (Euler, Heun, LMS);
- halves: `linspace` and `leading` of one step more, without the last (DPM-Solver, UniPC, DEIS);
- distilled: some of the steps that LCM and TCD models were distilled on;
- edm: noise levels between two numbers;
- flow: sigma of a rectified flow, falling evenly and then shifted;
- even: times of a continuous schedule, falling evenly from 1 (iPNDM).

Levels and halves may have their levels spaced by a rule between the same ends. The network is then called with the step
that goes with a level, or a whole one near it.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdiff.diffusion.schedule import Discrete, Schedule
from jaxdiff.sampling import grid

_GLIDE = np.concatenate(
    [start + np.round(np.linspace(0, 199, n)) for start, n in zip(range(0, 1000, 200), (10, 10, 3, 2, 2), strict=True)]
)
"""The steps of GLIDE's upsampler: many of each fifth near the data, few near the noise, and the last of them lower."""
_GLIDE[-1] = 997


class Calls(NamedTuple):
    """The grid of a walk, and what the network gets at each time but the last, or the first of a walk upwards."""

    times: Float[np.ndarray, " m"]
    timesteps: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Placing:
    """The way in which a published scheduler places its calls.

    Attributes:
      way: see the module docstring.
      spacing: leading, trailing or linspace; or glide: linspace, but for the 27 steps of its upsampler.
      offset: added to the trained steps of `leading`.
      rule: how noise levels are spaced instead: karras, exponential or beta; "": not.
      ends: the lowest and highest level of the rule; None is the grid's or the schedule's own.
      rho: rho of Karras' rule.
      rounding: whether the network is called with the `nearest` whole step, the one `below`, or that of its level
        itself ("").
      final: where the grid ends: `data`, `first` (the first trained step), `low` (the lowest level of the rule), or
        `last` (where the last call is).
      trained: how many of the trained steps are used; None: all.
      strides: whether each step goes N // steps trained steps down, wherever the next call is (DDIM, PNDM).
      shift: shift of a flow.
      terminal: the sigma to which a flow's last call is stretched; None: it is not.
      teacher: the number of steps that a distilled model's teacher made.
      up: whether the walk goes from data to noise (`halves`): its calls are those below the last trained step.
    """

    way: Literal["steps", "levels", "halves", "distilled", "edm", "flow", "even"] = "steps"
    spacing: str = "leading"
    offset: int = 0
    rule: str = ""
    ends: tuple[float | None, float | None] = (None, None)
    rho: float = 7.0
    rounding: str = ""
    final: str = "data"
    trained: int | None = None
    strides: bool = False
    shift: float = 1.0
    terminal: float | None = None
    teacher: int = 50
    up: bool = False

    def calls(self, schedule: Schedule, steps: int) -> Calls:
        """Returns the walk of that many steps.

        Raises:
          ValueError: if it cannot be placed; says how many steps can.
        """
        if self.way == "flow":
            times = self._flow(steps)
            trained_steps = times * (self.trained or 1000)
        elif self.way == "even":
            times = np.linspace(1, 0, steps + 1)[:-1]
            trained_steps = schedule.timestep(times)
        elif self.rule or self.way == "edm":
            levels = spaced(self.rule, *self._ends(schedule, steps), steps, self.rho)
            times = np.minimum(schedule.time(-2 * np.log(levels)), 1)
            trained_steps = schedule.timestep(times)
        else:
            assert isinstance(schedule, Discrete)
            trained_steps = self._steps(schedule, steps)
            times = (trained_steps + 1) / schedule.steps
            if np.any(trained_steps != np.round(trained_steps)):  # sigma is interpolated linearly, and ours is not
                known = np.exp(-schedule.log_snr(np.arange(1, schedule.steps + 1) / schedule.steps) / 2)
                times = schedule.time(-2 * np.log(np.interp(trained_steps, np.arange(schedule.steps), known)))
        if self.rounding:
            trained_steps = np.round(trained_steps) if self.rounding == "nearest" else np.floor(trained_steps + 1e-6)
        if np.any(np.diff(times) >= 0) or (self.up and self.rule and np.any(np.diff(trained_steps) >= 0)):
            raise ValueError(
                f"{steps} steps: this scheduler places two calls at the same noise level: take fewer steps"
            )
        if self.up:  # as at the other end, the reference may stay at the last level for a step
            trained = grid.trained_steps(schedule)
            top = times[0] if self.rule else (self.trained or trained) / trained
            return Calls(np.append(top, np.minimum(times, top * (1 - 1e-12))), trained_steps)
        # where the last call is at the final level already, the reference stays there for a step; so, nearly, do we
        stay = times[-1] * (1 - 1e-12)
        ends = {"data": lambda: 0.0, "last": lambda: stay, "first": lambda: 1 / grid.trained_steps(schedule)}
        ends["low"] = lambda: float(schedule.time(-2 * np.log(np.float64(self.ends[0] or 0))))
        return Calls(np.append(times, min(ends[self.final](), stay)), trained_steps)

    def gap(self, schedule: Schedule, steps: int) -> float | None:
        """Returns how far each step goes in time, where that is not to the next call."""
        if not self.strides:
            return None
        assert isinstance(schedule, Discrete)
        return schedule.steps // steps / schedule.steps

    def _steps(self, schedule: Discrete, steps: int) -> np.ndarray:
        """Returns the trained steps of the calls, falling."""
        trained, more = schedule.steps, int(self.way == "halves")
        last = self.trained or trained
        calls = slice(1, None) if self.up else slice(steps)
        if self.way == "distilled":
            return np.round(grid.distilled(schedule, steps, self.teacher)[:-1] * trained - 1)
        if self.spacing == "trailing":
            return np.round(last - np.arange(np.ceil(last * steps / trained - 1e-9)) * trained / steps) - 1
        if self.spacing == "glide" and steps == 27:
            return _GLIDE[::-1]
        if self.spacing in ("linspace", "glide"):
            chosen = np.linspace(0, last - 1, steps + more)[::-1][calls]
            return chosen if self.way == "levels" else np.round(chosen)
        top = lambda n: (n - 1 + more * (not self.up)) * (last // (n + more)) + self.offset
        if top(steps) >= trained:
            fits = next((n for n in range(steps - 1, 0, -1) if top(n) < trained), None)
            raise ValueError(
                f"{steps} steps, leading, with steps_offset={self.offset}, begin at step {top(steps)}, and the model "
                f"knows 0 to {trained - 1}: " + (f"take at most {fits} steps" if fits else "take a smaller offset")
            )
        return np.arange(steps + more, dtype=np.float64)[::-1][calls] * (last // (steps + more)) + self.offset

    def _ends(self, schedule: Schedule, steps: int) -> tuple[float, float]:
        """Returns the lowest and the highest level of the rule."""
        low, high = self.ends
        if low is None or high is None:
            trained = np.array([1.0, 1 / grid.trained_steps(schedule)])
            plain = (
                dataclasses.replace(self, rule="").calls(schedule, steps).times[:-1]
                if self.way == "levels"
                else trained
            )
            own = np.exp(-schedule.log_snr(plain[[0, -1]]) / 2)
            low, high = own[1] if low is None else low, own[0] if high is None else high
        if not low > 0 or not high > 0 or (low >= high and steps > 1):
            raise ValueError(f"sigma_min={low} and sigma_max={high}: expected 0 < sigma_min < sigma_max")
        if self.way == "edm" and self.rule == "exponential" and steps == 1:
            raise ValueError("1 step: exponential levels in EDM's terms take at least 2")
        return low, high

    def _flow(self, steps: int) -> np.ndarray:
        """Returns sigma of a flow at each call."""
        shifted = lambda u: self.shift * u / (1 + (self.shift - 1) * u)
        trained = self.trained or 1000
        if self.spacing == "match":  # its ends are shifted twice
            sigmas = shifted(np.linspace(1, shifted(1 / trained), steps))
        elif self.spacing == "unipc":
            sigmas = shifted(np.linspace(1, 1 / trained, steps + 1)[:-1])
        else:
            sigmas = shifted(1 - np.linspace(1, 1 / trained, steps + 1))[::-1][:-1]
        if self.terminal:
            sigmas = 1 - (1 - sigmas) * (1 - self.terminal) / (1 - sigmas[-1])
        if self.rule:
            sigmas = spaced(self.rule, sigmas[-1], sigmas[0], steps, self.rho)
        if self.spacing == "unipc" and sigmas[0] > 1 - 1e-6:
            sigmas[0] -= 1e-6
        return sigmas


def spaced(rule: str, low: float, high: float, steps: int, rho: float = 7.0) -> Float[np.ndarray, " n"]:
    """Returns noise levels from `high` down to `low`; a single one is `high`."""
    ramp = np.linspace(0, 1, steps)
    if rule == "karras":
        return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    if rule == "exponential":
        return np.exp(np.log(high) + ramp * (np.log(low) - np.log(high)))
    import scipy.special  # here, since it takes a while and few grids need it

    return low + scipy.special.betaincinv(0.6, 0.6, 1 - ramp) * (high - low)
