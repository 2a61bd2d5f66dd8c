"""Plots what a GAN's run says of its health, from WORKDIR/metrics.jsonl to WORKDIR/critic.png.

    python scripts/gan_plot.py runs/gan

What the critic says of real and made pictures; how long the gradient is that the generator gets (--task.slopes),
which vanishes where a strong critic plays minimax; and the value of the game, -2 log 2 where both look alike.
"""

import json
import pathlib
import sys

import numpy as np
from matplotlib.figure import Figure


def main(workdir: pathlib.Path) -> pathlib.Path:
    """Draws the plot."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "jensen_shannon" in line]
    if not lines:
        raise ValueError(f"{workdir} is no run of a GAN: its metrics have no jensen_shannon")
    of = lambda name: ([line["step"] for line in lines if name in line], [line[name] for line in lines if name in line])
    figure = Figure(figsize=(11, 3), layout="constrained")
    says, slope, value = figure.subplots(1, 3)
    for name in ("real", "fake"):
        says.plot(*of(name), label=name)
    says.set(title="what the critic says", xlabel="step", ylabel="logit")
    says.legend()
    slope.plot(*of("slope"))
    slope.set(title="gradient at made pictures", xlabel="step", yscale="log")
    steps, divergence = of("jensen_shannon")
    value.plot(steps, 2 * np.array(divergence) - 2 * np.log(2))
    for level, name in ((-2 * np.log(2), "alike: -2 log 2"), (0.0, "told apart: 0")):
        value.axhline(level, color="grey", linewidth=0.8)
        value.annotate(name, (steps[0], level), fontsize=7)
    value.set(title="value of the game", xlabel="step")
    path = workdir / "critic.png"
    figure.savefig(path, dpi=90)
    return path


if __name__ == "__main__":
    print(main(pathlib.Path(sys.argv[1])))
