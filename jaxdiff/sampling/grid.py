"""Time grids: where between noise and data the network is called.

A grid is a strictly decreasing float64 array of steps + 1 times in [0, 1]; a one-call-a-step sampler evaluates the
network at all but the last, and ends at the last, which is 0 (clean data) unless `final` says else.

Grids named after spacings of trained steps place them as the published models do. With N trained steps, step i lies at
t = (i + 1) / N (`schedule`), so for `steps` calls

    leading    i = n floor(N / steps) + offset          trailing    i = N - n N / steps - 1
    linspace   i = n (N - 1) / (steps - 1)              quadratic   i = (sqrt(0.8 N) n / (steps - 1))^2

each in falling order; a continuous schedule is treated as N = 1000. Grids named after a rule for noise levels choose
s = sigma / alpha = exp(-lambda / 2) between its values at `first` and `last` and map back through `schedule.time`:

    karras       s^(1/rho) evenly spaced                exponential   log s evenly spaced
    uniform_log_snr is exponential under the name DPM-Solver gives it; beta: quantiles of a Beta distribution of t;
    moderate: exponential from s = 40, where the schedule has more noise than that.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from jaxdiff.diffusion.schedule import Discrete, Schedule

Grid = Float[np.ndarray, " m"]


def check(times: Grid) -> Grid:
    """Returns the grid itself, as float64.

    Raises:
      ValueError: if it has fewer than two times, leaves [0, 1], or does not decrease strictly; names the first offence.
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"a grid is one axis of at least 2 times, got shape {times.shape}")
    outside = ~((times >= 0) & (times <= 1))
    if outside.any():
        n = int(np.argmax(outside))
        raise ValueError(f"times[{n}] = {times[n]} is outside [0, 1]: t = 1 is noise and t = 0 is data")
    rises = np.diff(times) >= 0
    if rises.any():
        n = int(np.argmax(rises)) + 1
        raise ValueError(
            f"times[{n}] = {times[n]} is not below times[{n - 1}] = {times[n - 1]}: a grid must decrease strictly; use "
            "grid.karras(schedule, steps) or fewer steps"
        )
    return times


def trained_steps(schedule: Schedule) -> int:
    """Returns the number of trained steps, 1000 for a continuous schedule."""
    return schedule.steps if isinstance(schedule, Discrete) else 1000


def _check_steps(schedule: Schedule, steps: int, least: int = 1) -> int:
    trained = trained_steps(schedule)
    if not least <= steps <= trained:
        raise ValueError(f"steps = {steps}: this grid takes {least} to {trained} steps on this schedule")
    return trained


def from_steps(schedule: Schedule, trained: Sequence[float | int] | np.ndarray, final: float = 0.0) -> Grid:
    """Returns the grid that calls the network at the trained steps (0 to N - 1, falling), and ends at time `final`."""
    times = (np.asarray(trained, np.float64) + 1) / trained_steps(schedule)
    return check(np.append(times, final))


def leading(schedule: Schedule, steps: int, offset: int = 0, final: float = 0.0) -> Grid:
    """Returns every floor(N / steps)-th trained step from `offset` up: ends early in the noise.

    What DDIM and SD 1 use.
    """
    trained = _check_steps(schedule, steps)
    return from_steps(schedule, np.arange(steps)[::-1] * (trained // steps) + offset, final)


def trailing(schedule: Schedule, steps: int, final: float = 0.0) -> Grid:
    """Returns every (N / steps)-th trained step from the last down.

    Source: Lin et al. 2023, arXiv 2305.08891, table 2.
    """
    trained = _check_steps(schedule, steps)
    return from_steps(schedule, np.round(trained - np.arange(steps) * trained / steps) - 1, final)


def linspace(schedule: Schedule, steps: int, final: float = 0.0) -> Grid:
    """Returns evenly spaced trained steps, the last to the first, fractional ones included; one step takes the last."""
    trained = _check_steps(schedule, steps)
    return from_steps(schedule, np.linspace(trained - 1, 0, steps), final)


def quadratic(schedule: Schedule, steps: int, final: float = 0.0) -> Grid:
    """Returns whole trained steps, dense near the data.

    Source: Song et al. 2021 (DDIM), arXiv 2010.02502, appendix D.2.
    """
    trained = _check_steps(schedule, steps)
    wanted = np.floor(np.linspace(0, (0.8 * trained) ** 0.5, steps) ** 2)
    # near the data the squares fall on one step more than once: move such steps up to the next free one
    free = np.maximum.accumulate(wanted - np.arange(steps)) + np.arange(steps)
    return from_steps(schedule, free[::-1], final)


def distilled(schedule: Schedule, steps: int, teacher: int = 50, final: float = 0.0) -> Grid:
    """Returns some of the `teacher` steps that LCM and TCD models are distilled on, N / teacher (1, 2, ...) - 1.

    Source: Luo et al. 2023, arXiv 2310.04378, section 4.3 (the skipping step), its released code.
    """
    trained = trained_steps(schedule)
    if not 1 <= steps <= teacher <= trained:
        raise ValueError(
            f"steps = {steps}: the model is distilled on {teacher} of {trained} steps, so 1 to {teacher} work"
        )
    known = np.arange(teacher, 0, -1) * (trained // teacher) - 1
    return from_steps(schedule, known[np.arange(steps) * teacher // steps], final)


def _noise_levels(schedule: Schedule, steps: int, first: float, last: float | None) -> tuple[float, float]:
    """Returns the values of sigma / alpha at both ends; `last` is by default the least noisy time that is trained."""
    if steps < 1:
        raise ValueError(f"steps = {steps}: a grid takes at least 1 step")
    last = (schedule.first or 1 / trained_steps(schedule)) if last is None else last
    high, low = (float(np.exp(-schedule.log_snr(np.float64(t)) / 2)) for t in (first, last))
    if not np.isfinite(high):
        raise ValueError(f"alpha is 0 at t = {first}, so noise levels have no largest one: pass first < {first}")
    if not 0 < low < high:
        raise ValueError(f"first = {first} and last = {last}: expected first > last > 0")
    return high, low


def from_levels(schedule: Schedule, levels: Float[np.ndarray, " n"], final: float = 0.0) -> Grid:
    """Returns the grid with the given falling sigma / alpha, then time `final`."""
    with np.errstate(divide="ignore"):
        times = schedule.time(-2 * np.log(np.asarray(levels, np.float64)))
    return check(np.append(np.clip(times, 0, 1), final))


def karras(
    schedule: Schedule,
    steps: int,
    rho: float = 7.0,
    first: float = 1.0,
    last: float | None = None,
    final: float = 0.0,
) -> Grid:
    """Returns a grid whose noise levels are evenly spaced in s^(1/rho).

    Source: Karras et al. 2022, arXiv 2206.00364, equation 5.
    """
    high, low = _noise_levels(schedule, steps, first, last)
    ramp = np.linspace(high ** (1 / rho), low ** (1 / rho), steps)
    return from_levels(schedule, ramp**rho, final)


def few_steps(schedule: Schedule, steps: int, rho: float = 7.0, final: float = 0.0) -> Grid:
    """Returns Karras' levels without the smallest, where a consistency model returns its input: a wasted call."""
    return check(np.append(karras(schedule, steps + 1, rho)[:-2], final))


def exponential(
    schedule: Schedule, steps: int, first: float = 1.0, last: float | None = None, final: float = 0.0
) -> Grid:
    """Returns a grid whose noise levels are evenly spaced in log s, which is uniform log-SNR."""
    high, low = _noise_levels(schedule, steps, first, last)
    return from_levels(schedule, np.exp(np.linspace(np.log(high), np.log(low), steps)), final)


uniform_log_snr = exponential


def moderate(schedule: Schedule, steps: int, top: float = 40.0, final: float = 0.0) -> Grid:
    """Returns exponential levels from `top` down, where the schedule has more noise than that.

    The cosine schedule ends at a level of 2e4 and a flow's has no bound; methods that step in the noise level, or hold
    eps constant, lose most of their few calls up there, where nothing is decided: at 40, alpha is 1/40.
    """
    with np.errstate(divide="ignore"):
        high = float(np.exp(-schedule.log_snr(np.float64(1.0)) / 2))
    first = 1.0 if high <= top else float(schedule.time(np.float64(-2 * np.log(top))))
    return exponential(schedule, steps, first=first, final=final)


def beta(schedule: Schedule, steps: int, a: float = 0.6, b: float = 0.6, final: float = 0.0) -> Grid:
    """Returns times at the quantiles of Beta(a, b). Source: Lee et al. 2024, arXiv 2407.12173, section 4."""
    trained = _check_steps(schedule, steps)
    import scipy.special  # here, since it takes a while and few grids need it

    quantiles = scipy.special.betaincinv(a, b, np.linspace(1, 0, steps))
    return check(np.append(1 / trained + (1 - 1 / trained) * quantiles, final))


# The 11 noise levels published with Align Your Steps (Sabour et al. 2024, arXiv 2404.14507) for each family
ALIGN_YOUR_STEPS = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}


def align_your_steps(schedule: Schedule, steps: int, family: str = "sd15", final: float = 0.0) -> Grid:
    """Returns the optimised noise levels of a model family, log-linearly interpolated to `steps`."""
    if family not in ALIGN_YOUR_STEPS:
        raise ValueError(f"no such table {family!r}: expected one of {', '.join(ALIGN_YOUR_STEPS)}")
    levels = np.log(ALIGN_YOUR_STEPS[family])
    picked = np.interp(np.linspace(0, len(levels) - 1, steps), np.arange(len(levels)), levels)
    return from_levels(schedule, np.exp(picked), final)


def cut(times: Grid, strength: float) -> Float[np.ndarray, " kept"]:
    """Returns the tail of a grid that img2img walks: the last int(steps x strength) steps, at least one."""
    steps = len(times) - 1
    kept = int(steps * strength)
    if not (0 < strength <= 1 and kept >= 1):
        raise ValueError(
            f"strength = {strength} keeps {kept} of {steps} steps: expected a number in [{1 / steps:.3g}, 1]"
        )
    return times[steps - kept :]


GRIDS: dict[str, Callable[..., Grid]] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "quadratic": quadratic,
    "distilled": distilled,
    "karras": karras,
    "exponential": exponential,
    "uniform_log_snr": uniform_log_snr,
    "moderate": moderate,
    "beta": beta,
    "align_your_steps": align_your_steps,
    "few_steps": few_steps,
}
