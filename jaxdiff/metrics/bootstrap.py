"""Confidence intervals for any number computed from sets of pictures.

The bootstrap here draws random halves without replacement. Drawn with replacement, pictures come twice, which alone
raises a Frechet distance and shrinks the balls of nearest neighbours. Given the whole set of n, the mean of n / 2 drawn
without replacement has the variance s^2 (1 / (n/2) - 1 / n) = s^2 / n, that of the estimate itself: so the spread of
the halves' values needs no scaling. Their quantiles are taken about their own mean, since what half a set shows may be
biased more than the whole; an interval is widened to its value where, with few draws, it lies beside it.

Source: Politis & Romano 1994, "Large sample confidence regions based on subsamples", section 2.2.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A value and its interval; both ends are NaN where none was asked for, or the value is not finite."""

    value: float
    low: float
    high: float

    def within(self, least: float, most: float) -> "Estimate":
        """Returns the same with its interval cut to a range that true values lie in.

        It always holds the value itself.
        """
        if not np.isfinite([self.value, self.low, self.high]).all():
            return Estimate(self.value, np.nan, np.nan)
        return Estimate(self.value, min(self.value, max(self.low, least)), max(self.value, min(self.high, most)))


def bootstrap(
    statistic: Callable[..., dict[str, float]],
    *sets: np.ndarray,
    resamples: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Returns the numbers that `statistic` gives for the sets, with intervals.

    Args:
      statistic: (sets) -> numbers by name.
      sets: arrays whose first axis is the picture; each is halved by its own draws.
      resamples: how many times; 0 gives no intervals.
      level: the probability that the interval covers the true value, in (0, 1).
      seed: seed of the draws.
    """
    if resamples < 0 or not 0 < level < 1:
        raise ValueError(f"resamples is {resamples} and level {level}: expected 0 or more, and a level between 0 and 1")
    values = statistic(*sets)
    if not resamples:
        return {name: Estimate(value, np.nan, np.nan) for name, value in values.items()}
    rng = np.random.default_rng(seed)
    draws = [
        statistic(*(x[rng.choice(len(x), (len(x) + 1) // 2, replace=False)] for x in sets)) for _ in range(resamples)
    ]
    result = {}
    for name, value in values.items():
        spread = np.array([draw[name] for draw in draws])
        if np.isfinite(spread).all():
            low, high = np.quantile(spread - spread.mean(), ((1 - level) / 2, (1 + level) / 2))
        else:  # a PSNR of equal pictures
            low, high = np.nan, np.nan
        result[name] = Estimate(value, float(value + low), float(value + high)).within(-np.inf, np.inf)
    return result
