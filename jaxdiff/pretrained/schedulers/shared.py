"""Fields that many classes of scheduler share, and what they mean."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.diffusion import schedule as schedules
from jaxdiff.diffusion.schedule import Discrete
from jaxdiff.pretrained.schedulers.fields import Fields

KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
NO_SAMPLE = {"epsilon": "eps", "v_prediction": "v"}
SMALLEST = 2.0**-24
"""Alpha squared at the last step of zero terminal SNR, in the classes that divide by it."""
SHIFTED = "a model whose shift depends on the picture's size has no single walk"
_SPACINGS = ("leading", "trailing", "linspace")
_RULES = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta"}


def kind_of(f: Fields, known: dict[str, str] = KINDS) -> str:
    return known[f.choice("prediction_type", known)]


def schedule_of(f: Fields, smallest: float = 0.0, more: tuple[str, ...] = ()) -> Discrete:
    """Returns the betas; with zero terminal SNR, alpha squared ends at `smallest`."""
    steps, first, last = f["num_train_timesteps"], f["beta_start"], f["beta_end"]
    if steps < 2:
        raise ValueError(f"{f.name}: num_train_timesteps={steps}: expected at least 2")
    makers: dict[str, Callable[[], Discrete]] = {
        "linear": lambda: schedules.linear(steps, first, last),
        "scaled_linear": lambda: schedules.scaled_linear(steps, first, last),
        "squaredcos_cap_v2": lambda: schedules.cosine(steps),
        "sigmoid": lambda: schedules.sigmoid(steps, first, last),
        "laplace": lambda: schedules.from_alpha_bar(_laplace, steps),
        "exp": lambda: schedules.from_alpha_bar(lambda u: np.exp(-12 * u), steps),
    }
    betas = f["trained_betas"]
    if betas is None:
        schedule = makers[f.choice("beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2", *more))]()
    else:
        if not isinstance(betas, list) or not all(isinstance(b, int | float) for b in betas):
            raise ValueError(f"{f.name}: trained_betas of type {type(betas).__name__}: expected a list of numbers")
        if len(betas) != steps:
            raise ValueError(f"{f.name}: {len(betas)} trained_betas, and num_train_timesteps={steps}: expected as many")
        schedule = schedules.discrete(np.asarray(betas, np.float64))
    if f.get("rescale_betas_zero_snr"):
        schedule = schedules.zero_terminal(schedule)
        if smallest:
            if schedule.knots[-1] <= np.log(smallest):
                raise ValueError(
                    f"{f.name}: rescale_betas_zero_snr on these betas: the step before the last would be noisier than "
                    "the last, which this class ends at 2^-24: take DDIMScheduler"
                )
            schedule = schedules.from_log_snr(np.append(schedule.knots, np.log(smallest) - np.log1p(-smallest)))
    return schedule


def _laplace(u: np.ndarray) -> np.ndarray:
    lam = -0.5 * np.copysign(1, 0.5 - u) * np.log(1 - 2 * np.abs(0.5 - u) + 1e-6)
    return np.sqrt(1 / (1 + np.exp(-lam)))


def bounds_of(f: Fields) -> dict[str, Any]:
    """Returns what keeps estimates in bounds: `clip`, `threshold`, or neither."""
    found: dict[str, Any] = {}
    if "clip_sample" in f:
        clip, reach = f["clip_sample"], f["clip_sample_range"]
        found = {"clip": reach} if clip else {}
    if "thresholding" in f:
        threshold, ratio, most = f["thresholding"], f["dynamic_thresholding_ratio"], f["sample_max_value"]
        found = {"threshold": (ratio, most)} if threshold else found
    return found


def rule_of(f: Fields) -> str:
    """Returns how levels are spaced, if by a rule."""
    chosen = [field for field in _RULES if f[field]]
    if len(chosen) > 1:
        raise ValueError(f"{f.name}: {' and '.join(chosen)}: expected at most one of them")
    return _RULES[chosen[0]] if chosen else ""


def spacing_of(f: Fields) -> dict[str, Any]:
    return {"spacing": f.choice("timestep_spacing", _SPACINGS), "offset": f["steps_offset"]}


def end_of(f: Fields, field: str = "final_sigmas_type", low: str = "first") -> str:
    return {"zero": "data", "sigma_min": low}[f.choice(field, ("zero", "sigma_min"))]
