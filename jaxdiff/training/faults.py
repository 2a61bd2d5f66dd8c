"""Faults: what a run does about steps that went wrong: a loss that is not finite, a gradient far larger than usual."""

import collections
import math
import statistics
from collections.abc import Mapping

from jaxdiff.training.step import WATCHED

TYPICAL = 20
"""Steps after which the typical norm of the gradient is known."""
IN_A_ROW = 10
"""Skipped steps in a row, or rewinds without a checkpoint in between, after which a run stops."""


class NonFiniteLoss(FloatingPointError):  # noqa: N818
    """A step went wrong and the run stops; the message says when, and where to resume from."""


class Watch:
    """Tells from the metrics of each step whether it went wrong; the same in all processes, whose metrics are equal."""

    def __init__(self, spike: float) -> None:
        """Takes how many times the typical norm of the gradient is too much; 0 allows any."""
        self._spike = spike
        self._norms: collections.deque[float] = collections.deque(maxlen=100)
        self._in_a_row = 0

    def fault(self, metrics: Mapping[str, float]) -> str:
        """Returns what is wrong with a step, or ''; one that skipped itself is wrong only as one of many in a row."""
        if metrics.get("skipped"):
            self._in_a_row += 1
            finite = math.isfinite(metrics["param_norm"]) and self._in_a_row < IN_A_ROW
            return "" if finite else f"{self._in_a_row} steps in a row were skipped; {_values(metrics)}"
        self._in_a_row = 0
        if not all(math.isfinite(metrics[name]) for name in WATCHED):
            return _values(metrics)
        norm = metrics["grad_norm"]
        usual = statistics.median(self._norms) if len(self._norms) >= TYPICAL else math.inf
        if self._spike and norm > self._spike * usual:
            return f"grad_norm = {norm:.4g} is over {self._spike:g} times the usual {usual:.4g}"
        self._norms.append(norm)
        return ""


def _values(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {metrics[name]}" for name in WATCHED)
