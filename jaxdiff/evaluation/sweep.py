"""Quality against network calls: samplers side by side on one model."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxdiff import sampling
from jaxdiff.metrics.bootstrap import Estimate


@dataclasses.dataclass(frozen=True)
class Cell:
    """One sampler with at most so many network calls.

    Attributes:
      sampler: its name.
      wanted: calls that were asked for.
      steps: the most that need no more.
      calls: what they need.
    """

    sampler: str
    wanted: int
    steps: int
    calls: int


def cells(samplers: Sequence[str], calls: Sequence[int], count: Callable[[str, int], int]) -> list[Cell]:
    """Lists all cells of a sweep; those of one number of calls follow each other and share a compiled program.

    Args:
      samplers: their names.
      calls: most network calls of each column.
      count: (sampler, steps) -> the network calls that these take.

    Raises:
      ValueError: for a sampler that does not exist or cannot make so few calls.
    """
    return [_cell(sampler, wanted, count) for wanted in calls for sampler in samplers]


def _cell(sampler: str, wanted: int, count: Callable[[str, int], int]) -> Cell:
    if wanted < 1:
        raise ValueError(f"calls is {wanted}: expected 1 or more")
    error: Exception | None = None
    for steps in range(wanted, 0, -1):
        try:
            calls = count(sampler, steps)
        except ValueError as problem:
            if sampler not in sampling.SAMPLERS:
                raise
            error = problem
            continue
        if calls <= wanted:
            return Cell(sampler, wanted, steps, calls)
    raise ValueError(f"sampler {sampler!r} cannot make do with {wanted} network calls: {error or 'it needs more'}")


def table(rows: Sequence[tuple[Cell, dict[str, Estimate]]], metric: str) -> str:
    """Writes a table as markdown: a line a sampler, a column a number of calls."""
    columns = sorted({cell.wanted for cell, _ in rows})
    lines = [f"| {metric} | " + " | ".join(f"{n} calls" for n in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for sampler in dict.fromkeys(cell.sampler for cell, _ in rows):
        found = {cell.wanted: (cell, values[metric]) for cell, values in rows if cell.sampler == sampler}
        texts = [_text(*found[n]) if n in found else "" for n in columns]
        lines.append(f"| `{sampler}` | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _text(cell: Cell, e: Estimate) -> str:
    half = f" ± {(e.high - e.low) / 2:.2g}" if e.high >= e.low else ""
    return f"{e.value:.4g}{half}" + (f" ({cell.calls})" if cell.calls != cell.wanted else "")


def plot(rows: Sequence[tuple[Cell, dict[str, Estimate]]], metric: str, path: Path, title: str) -> None:
    """Draws a PNG of one metric against network calls, logarithmic where all is positive, with its intervals.

    Raises:
      ImportError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the plot needs matplotlib: pip install 'jaxdiff[metrics]'") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis: Any = figure.subplots()
    for sampler in dict.fromkeys(cell.sampler for cell, _ in rows):
        mine = sorted(((c.calls, v[metric]) for c, v in rows if c.sampler == sampler), key=lambda pair: pair[0])
        calls, values = [n for n, _ in mine], [e.value for _, e in mine]
        axis.plot(calls, values, marker="o", markersize=4, label=sampler)
        if all(e.high >= e.low for _, e in mine):
            axis.fill_between(calls, [e.low for _, e in mine], [e.high for _, e in mine], alpha=0.15)
    positive = all(values[metric].value > 0 for _, values in rows)
    axis.set(xscale="log", yscale="log" if positive else "linear", xlabel="network calls", ylabel=metric, title=title)
    ticks = sorted({cell.wanted for cell, _ in rows})
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
