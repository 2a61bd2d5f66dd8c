"""scheduler_config.json of diffusers as our schedule, kind of prediction, sampler and grid.

Its classes place their calls in three ways; `Placing.times` repeats them:

- steps: whole trained steps (DDPM, DDIM, PNDM);
- levels: the same, but `linspace` has fractional ones, between which sigma is interpolated (Euler, Heun, LMS);
- halves: `linspace` and `leading` of one step more, without the last (DPM-Solver, UniPC, DEIS).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.diffusion import prediction
from jaxdiff.diffusion import schedule as schedules
from jaxdiff.diffusion.schedule import Discrete, Schedule
from jaxdiff.sampling import grid as grids
from jaxdiff.sampling.registry import SAMPLERS, lookup

# class -> (our sampler, way of placing calls, spacing where the config says none)
_CLASSES = {
    "DDPMScheduler": ("ddpm", "steps", "leading"),
    "DDIMScheduler": ("ddim", "steps", "leading"),
    "PNDMScheduler": ("pndm", "steps", "leading"),
    "EulerDiscreteScheduler": ("euler", "levels", "linspace"),
    "EulerAncestralDiscreteScheduler": ("euler_ancestral", "levels", "linspace"),
    "HeunDiscreteScheduler": ("heun", "levels", "linspace"),
    "KDPM2DiscreteScheduler": ("kdpm2", "levels", "linspace"),
    "KDPM2AncestralDiscreteScheduler": ("kdpm2_ancestral", "levels", "linspace"),
    "LMSDiscreteScheduler": ("lms", "levels", "linspace"),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", "halves", "linspace"),
    "UniPCMultistepScheduler": ("unipc", "halves", "linspace"),
    "DEISMultistepScheduler": ("deis", "halves", "linspace"),
}
_KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_VARIANCES = {"fixed_small": "small", "fixed_large": "large", "learned_range": "learned"}
_CLIPPING = ("DDPMScheduler", "DDIMScheduler")
_SOLVERS = {
    ("dpmsolver++", 1): "ddim",
    ("dpmsolver++", 2): "dpmpp_2m",
    ("dpmsolver++", 3): "dpmpp_3m",
    ("sde-dpmsolver++", 2): "dpmpp_2m_sde",
    ("dpmsolver", 2): "dpm_solver",
}


@dataclasses.dataclass(frozen=True)
class Placing:
    """How a published scheduler places its calls.

    Attributes:
      way: see the module docstring.
      spacing: leading, trailing or linspace.
      offset: added to the trained steps of `leading`.
      karras: whether noise levels are spaced by Karras' rule instead.
      final: where the grid ends: `data`, `first` (the first trained step), `below` (the smallest level of the grid).
    """

    way: str = "steps"
    spacing: str = "leading"
    offset: int = 0
    karras: bool = False
    final: str = "data"

    def times(self, s: Discrete, steps: int) -> grids.Grid:
        """The grid of that many steps, as the reference library places them."""
        calls = self._calls(s, steps)
        first = 1 / s.steps
        final = {"data": 0.0, "first": first, "below": first / 2 if self.karras else first}[self.final]
        # where the last call is at the final level already, the reference stays there for a step; so, nearly, do we
        return grids.check(np.append(calls, min(final, calls[-1] * (1 - 1e-6))))

    def _calls(self, s: Discrete, steps: int) -> np.ndarray:
        trained = s.steps
        if self.karras and self.way == "halves":
            return grids.karras(s, steps)[:-1]
        if self.karras and self.way == "levels":
            plain = dataclasses.replace(self, karras=False)._calls(s, steps)
            return grids.karras(s, steps, first=plain[0], last=plain[-1])[:-1]
        if self.spacing == "trailing":
            return grids.trailing(s, steps)[:-1]
        extra = int(self.way == "halves")
        if self.spacing == "leading":
            whole = np.arange(steps + extra, dtype=np.float64)[::-1] * (trained // (steps + extra)) + self.offset
        elif self.way == "levels":
            known = np.exp(-np.asarray(s.knots) / 2)
            levels = np.interp(np.linspace(trained - 1, 0, steps), np.arange(len(known)), known)
            return grids.from_levels(s, levels)[:-1]
        else:
            whole = np.linspace(0, trained - 1, steps + extra).round()[::-1]
        return grids.from_steps(s, whole[:steps])[:-1]


@dataclasses.dataclass(frozen=True)
class Process:
    """How a model was trained, and how its authors sample from it.

    Attributes:
      schedule: the noise.
      kind: what the network predicts.
      sampler: a name in `sampling.SAMPLERS`.
      grid: how a published scheduler places its calls; or the name of a grid in `sampling.grid.GRIDS`.
      whole: whether the network is told the nearest trained step, while noise levels lie between (`halves` by Karras).
      options: the sampler's.
      clip: estimates of x0 are clipped to [-clip, clip]; None: not.
    """

    schedule: Schedule
    kind: str
    sampler: str
    grid: Placing | str = Placing()
    whole: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    clip: float | None = None

    def times(self, steps: int) -> grids.Grid:
        """The grid of that many steps.

        Raises:
          ValueError: for steps that it cannot make on this schedule.
        """
        if isinstance(self.grid, str):
            return grids.GRIDS[self.grid](self.schedule, steps)
        assert isinstance(self.schedule, Discrete)
        return self.grid.times(self.schedule, steps)

    def start(self, times: grids.Grid) -> float:
        """What unit noise is multiplied by to be the picture at times[0].

        That is sqrt(alpha^2 + sigma^2), the deviation of noisy data of unit variance, except for published classes that
        work on noise levels: where their grid starts at the last trained step they leave the signal's share out.
        """
        alpha, sigma = (float(f(np.asarray(times[:1]))[0]) for f in (self.schedule.alpha, self.schedule.sigma))
        placed = self.grid if isinstance(self.grid, Placing) else Placing()
        alone = placed.way == "levels" and placed.spacing in ("linspace", "trailing")
        return sigma if alone else float(np.hypot(alpha, sigma))


def native(
    schedule: Schedule,
    kind: str,
    sampler: str = "ddim",
    grid: str | None = None,
    clip: float | None = None,
    options: Mapping[str, Any] = {},
) -> Process:
    """The process of a model that was trained here, on any schedule.

    Args:
      schedule: the noise.
      kind: what the network predicts, one of `prediction.KINDS`.
      sampler: a name in `sampling.SAMPLERS`.
      grid: a name in `sampling.grid.GRIDS`; None: the sampler's own.
      clip: estimates of x0 are clipped to [-clip, clip]; None: not.
      options: the sampler's, such as eta.

    Raises:
      ValueError: for an unknown kind, sampler or grid, or a kind that this schedule does not allow.
    """
    prediction.check(kind, schedule)
    grid = grid or lookup("sampler", sampler, SAMPLERS).grid
    lookup("grid", grid, grids.GRIDS)
    return Process(schedule, kind, sampler, grid, options=dict(options), clip=clip)


def process(config: Mapping[str, Any]) -> Process:
    """The process of a scheduler_config.json.

    Raises:
      ValueError: for a class or a value that is not supported, with those that are.
    """
    name = config.get("_class_name")
    if name not in _CLASSES:
        raise ValueError(f"scheduler {name!r} is not supported: expected one of {', '.join(_CLASSES)}")
    sampler, way, spacing = _CLASSES[name]
    kind = config.get("prediction_type", "epsilon")
    if kind not in _KINDS:
        raise ValueError(f"{name}: prediction_type={kind!r}: expected one of {', '.join(_KINDS)}")
    if config.get("thresholding"):
        raise ValueError(f"{name}: thresholding=True is not supported, only False")
    if name == "DPMSolverMultistepScheduler":
        form = (config.get("algorithm_type", "dpmsolver++"), config.get("solver_order", 2))
        if form not in _SOLVERS:
            known = "; ".join(f"{a} of order {o}" for a, o in _SOLVERS)
            raise ValueError(f"{name}: {form[0]} of order {form[1]}: expected one of {known}")
        sampler = _SOLVERS[form]
    if name == "PNDMScheduler" and config.get("skip_prk_steps", False):
        sampler = "plms"
    final = "data"
    if name in ("DDIMScheduler", "PNDMScheduler") and not config.get("set_alpha_to_one", name == "DDIMScheduler"):
        final = "first"
    if way == "halves" and config.get("final_sigmas_type", "zero") == "sigma_min":
        final = "below"
    karras, cosine = bool(config.get("use_karras_sigmas")), config.get("beta_schedule") == "squaredcos_cap_v2"
    options = {}
    if name == "DDPMScheduler":
        variance = config.get("variance_type", "fixed_small")
        if variance not in _VARIANCES:
            raise ValueError(f"{name}: variance_type={variance!r}: expected one of {', '.join(_VARIANCES)}")
        options = {"variance": _VARIANCES[variance]}
    return Process(
        schedule=_schedule(name, config),
        kind=_KINDS[kind],
        sampler=sampler,
        grid=Placing(way, config.get("timestep_spacing", spacing), config.get("steps_offset", 0), karras, final),
        whole=karras and way == "halves" and not (name.startswith("DPM") and cosine),
        options=options,
        clip=config.get("clip_sample_range", 1.0) if config.get("clip_sample", name in _CLIPPING) else None,
    )


def _schedule(name: str, config: Mapping[str, Any]) -> Discrete:
    steps = config.get("num_train_timesteps", 1000)
    first, last = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    kind = config.get("beta_schedule", "linear")
    makers = {
        "linear": lambda: schedules.linear(steps, first, last),
        "scaled_linear": lambda: schedules.scaled_linear(steps, first, last),
        "squaredcos_cap_v2": lambda: schedules.cosine(steps),
        "sigmoid": lambda: schedules.sigmoid(steps, first, last),
    }
    if config.get("trained_betas") is not None:
        made = schedules.discrete(np.asarray(config["trained_betas"], np.float64))
    elif kind in makers:
        made = makers[kind]()
    else:
        raise ValueError(f"{name}: beta_schedule={kind!r}: expected one of {', '.join(makers)}")
    return schedules.zero_terminal(made) if config.get("rescale_betas_zero_snr") else made
