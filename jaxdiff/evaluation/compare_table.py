"""The table and the plot of what `jaxdiff compare` found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def markdown(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns the table: a row a family, the mean over its seeds and, of several, the deviation."""
    names = dict.fromkeys(name for runs in rows.values() for run in runs for name in run["metrics"])
    other = [name for name in names if not name.startswith("bits/dim")]
    heads = [
        "family",
        "parameters",
        "steps",
        "examples/s in training",
        "network calls",
        "pictures/s",
        *other,
        "bits/dim",
    ]

    def with_spread(values: Sequence[Any]) -> str:
        spread = f" ± {round(float(np.std(values, ddof=1)), 12):.2g}" if len(values) > 1 else ""
        return f"{np.mean(values):.4g}{spread}" if values else "none"

    lines = [heads, ["---"] * len(heads)]
    for name, runs in rows.items():
        kinds = [kind for kind in runs[0]["metrics"] if kind.startswith("bits/dim")]
        of = lambda key, runs=runs: with_spread([run[key] for run in runs])
        metric = lambda key, runs=runs: with_spread([run["metrics"][key] for run in runs if key in run["metrics"]])
        likely = f"{metric(kinds[0])} {kinds[0].removeprefix('bits/dim ')}" if kinds else "none"
        numbers = [f"{runs[0]['parameters'] / 1e6:.2f}M", of("steps"), of("examples_per_second"), str(runs[0]["calls"])]
        lines.append([name, *numbers, of("pictures_per_second"), *map(metric, other), likely])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(rows: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> bool:
    """Draws the first metric of pictures over the speed of sampling; False where there is none, or no matplotlib."""
    names = [name for name in next(iter(rows.values()))[0]["metrics"] if not name.startswith("bits/dim")]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not names:
        return False
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, runs in rows.items():
        x, y = [run["pictures_per_second"] for run in runs], [run["metrics"][names[0]] for run in runs]
        axes.plot(x, y, "o", label=name)
    axes.set(xscale="log", xlabel="pictures a second", ylabel=names[0])
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=90)
    return True
