"""Checks of a `process.ProcessConfig`: names, ranges, fields that the chosen names do not read, and exclusions."""

import difflib
import inspect
import math
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from jaxdiff.diffusion import schedule

if TYPE_CHECKING:
    from jaxdiff.diffusion.process import ProcessConfig

DISCRETE = ("linear", "scaled_linear", "cosine", "sigmoid", "sigmoid_signal")
"""Schedules that are a list of trained steps."""
BETAS = ("linear", "scaled_linear", "sigmoid", "vp", "sub_vp")
CONSISTENCY = ("consistency_training", "consistency_distillation")
SPANS = {"consistency_training": (10, 1280), "consistency_distillation": (18, 18), "progressive": (1024, 1)}
"""The (first, last) intervals of few-step objectives: of iCT, of consistency distillation on CIFAR-10, of halving."""


def numbers(c: "ProcessConfig") -> dict[str, Any]:
    """Returns the arguments of the function in `schedule` that has the config's schedule's name.

    Without those left to it.
    """
    start, end = ("start", "end") if c.schedule in DISCRETE else ("beta_min", "beta_max")
    named = {"steps": c.steps, start: c.beta_min, end: c.beta_max, "sigma_min": c.sigma_min, "sigma_max": c.sigma_max}
    taken = inspect.signature(getattr(schedule, c.schedule)).parameters
    return {k: v for k, v in {**named, "shift": c.shift}.items() if k in taken and v is not None}


def span(c: "ProcessConfig") -> tuple[int, int]:
    """Returns (first, last) of the intervals."""
    return SPANS[c.objective] if c.intervals is None else c.intervals


def check(c: "ProcessConfig") -> None:
    """Refuses a config by the first thing that is wrong with it.

    Raises:
      ValueError: says what was given, what was expected, and what to set.
    """
    _names(c)
    _ranges(c)
    _conflicts(c)
    _unread(c)


def _names(c: "ProcessConfig") -> None:
    for field in c.__dataclass_fields__.values():
        value, kind = getattr(c, field.name), field.type
        if get_origin(kind) is Literal and value not in get_args(kind):
            names = get_args(kind)
            near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.4)
            listed = ", ".join([*near, *(n for n in names if n not in near)])
            raise ValueError(f"unknown {field.name} {value!r}: expected one of {listed}")
        if kind is bool and not isinstance(value, bool):
            raise ValueError(f"{field.name} = {value!r}: expected true or false")


def _ranges(c: "ProcessConfig") -> None:
    _number("steps", c.steps, 3, 1_000_000, integer=True)
    _number("stage", c.stage, 1, 10**9, integer=True)
    _number("bins", c.bins, 0, 2**16, integer=True)
    if c.bins == 1:
        raise ValueError(
            "bins = 1: expected the number of levels of the data, 256 for pictures, or 0 for continuous data"
        )
    _number("offset_noise", c.offset_noise, 0, 1)
    _number("input_perturbation", c.input_perturbation, 0, 1)
    _number("shift", c.shift, 1e-6, 1e6)
    for name in ("beta_min", "beta_max", "sigma_min", "sigma_max", "time_std", "clip"):
        if getattr(c, name) is not None:
            _number(name, getattr(c, name), 1e-6, 1e6)
    for name in ("time_mean", "weight_number"):
        if getattr(c, name) is not None:
            _number(name, getattr(c, name), -1e6, 1e6)
    if c.weight_number is not None and c.weight != "sigmoid":
        _number("weight_number", c.weight_number, 1e-6, 1e6)
    if c.schedule != "learned":
        function = getattr(schedule, c.schedule)
        values = {**{k: p.default for k, p in inspect.signature(function).parameters.items()}, **numbers(c)}
        low, high = ("start", "end") if c.schedule in DISCRETE else ("beta_min", "beta_max")
        if c.schedule in BETAS:
            top = 1 if c.schedule in DISCRETE else math.inf
            _ordered(c, "beta", values[low], values[high], top)
        if c.schedule == "ve":
            _ordered(c, "sigma", values["sigma_min"], values["sigma_max"], math.inf)
        if c.schedule == "edm" and values["sigma_max"] <= 0.002:
            raise ValueError(f"sigma_max = {c.sigma_max}: expected more than 0.002, the smallest level of edm")
    if c.objective in SPANS:
        _check_span(c, SPANS[c.objective] if c.intervals is None else c.intervals)


def _number(name: str, value: Any, low: float | int, high: float | int, integer: bool = False) -> None:
    right = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
    if not (right and low <= value <= high):
        kind = "a whole number" if integer else "a number"
        raise ValueError(f"{name} = {value!r}: expected {kind} from {low:g} to {high:g}")


def _ordered(c: "ProcessConfig", name: str, low: float | int, high: float | int, top: float | int) -> None:
    if not low < high < top:
        below = f" < {top:g}" if top < math.inf else ""
        raise ValueError(
            f"{name}_min = {low:g} and {name}_max = {high:g} with schedule = {c.schedule}: expected {name}_min < "
            f"{name}_max{below}; set both"
        )


def _check_span(c: "ProcessConfig", pair: Any) -> None:
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
        raise ValueError(f"intervals = {pair!r}: expected two whole numbers, the first and the last")
    for number in pair:
        _number("intervals", number, 1, 2**20, integer=True)
    first, last = pair
    rises = c.objective in CONSISTENCY
    ratio = max(first, last) / min(first, last)
    if (last < first if rises else last > first) or not math.log2(ratio).is_integer():
        way = "doubled from the first to the last" if rises else "halved from the first to the last"
        raise ValueError(
            f"intervals = ({first}, {last}) with objective = {c.objective}: expected numbers that are {way}, such as "
            f"{SPANS[c.objective]}"
        )


def _conflicts(c: "ProcessConfig") -> None:
    few_steps = c.objective in CONSISTENCY
    if few_steps:
        _need(c, "objective", schedule=("edm",), prediction=("edm",), weight=("simple",))
        _need(c, "objective", times=("uniform", "log_normal"))
    if c.objective == "bound":
        _need(c, "objective", schedule=(*DISCRETE, "vp", "sub_vp", "learned"), zero_terminal=(False,))
        _need(c, "objective", weight=("simple",), times=("uniform",))
    if c.objective == "progressive":
        _need(c, "objective", prediction=("x0", "v", "flow", "edm"), times=("uniform",))
        _need(c, "objective", schedule=(*DISCRETE, "shifted_cosine", "vp", "sub_vp", "flow"))
    if c.schedule == "learned":
        _need(c, "schedule", objective=("bound",))
    if c.variance == "learned":
        _need(c, "variance", objective=("denoising",), schedule=DISCRETE, times=("steps", "importance"))
        _need(c, "variance", input_perturbation=(0.0,))
    if c.variance == "large":
        _need(c, "variance", objective=("denoising", "bound"))


def _need(c: "ProcessConfig", because: str, **allowed: tuple[Any, ...]) -> None:
    for name, values in allowed.items():
        if getattr(c, name) not in values:
            listed = " or ".join(str(v) for v in values)
            raise ValueError(
                f"{because} = {getattr(c, because)} does not go with {name} = {getattr(c, name)}: "
                f"set {name} to {listed}"
            )


def _unread(c: "ProcessConfig") -> None:
    steps = ("steps", "importance")
    read = {
        "zero_terminal": (c.schedule in DISCRETE, "schedule = " + ", ".join(DISCRETE)),
        "steps": (c.schedule in DISCRETE or c.times in steps, f"schedule = {', '.join(DISCRETE)}, or times = steps"),
        "shift": (c.schedule in ("flow", "shifted_cosine"), "schedule = flow, shifted_cosine"),
        "beta_min": (c.schedule in BETAS, "schedule = " + ", ".join(BETAS)),
        "beta_max": (c.schedule in BETAS, "schedule = " + ", ".join(BETAS)),
        "sigma_min": (c.schedule == "ve", "schedule = ve"),
        "sigma_max": (c.schedule in ("ve", "edm"), "schedule = ve, edm"),
        "prediction": (True, ""),
        "weight_number": (
            c.weight in ("min_snr", "capped_v", "p2", "sigmoid"),
            "weight = min_snr, capped_v, p2, sigmoid",
        ),
        "time_mean": (c.times in ("log_normal", "logit_normal"), "times = log_normal, logit_normal"),
        "time_std": (c.times in ("log_normal", "logit_normal"), "times = log_normal, logit_normal"),
        "times": (c.objective == "denoising" or c.objective in CONSISTENCY, "objective = denoising"),
        "coupling": (c.objective == "denoising", "objective = denoising"),
        "offset_noise": (c.objective == "denoising", "objective = denoising"),
        "input_perturbation": (c.objective == "denoising", "objective = denoising"),
        "bins": (c.objective == "bound" or c.variance == "learned", "objective = bound, or variance = learned"),
        "intervals": (c.objective in SPANS, "objective = " + ", ".join(SPANS)),
        "stage": (c.objective in SPANS and len(set(span(c))) == 2, "objectives whose intervals change"),
        "target": (c.objective in CONSISTENCY, "objective = " + ", ".join(CONSISTENCY)),
    }
    for name, (does, readers) in read.items():
        value, default = getattr(c, name), c.__dataclass_fields__[name].default
        if not does and value != default:
            raise ValueError(f"{name} = {value} is read by {readers} only: leave it at {default}")
