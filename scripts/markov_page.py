"""Makes docs/markov.md and its plot: from Markov chains to diffusion, every number computed here.

python scripts/markov_page.py
"""

import pathlib

import matplotlib
import numpy as np

from jaxdiff.diffusion import categorical, markov, schedule

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = pathlib.Path(__file__).parents[1] / "docs"
KNOWN = np.array([[0.05, 0.75, 0.2], [0.8, 0.05, 0.15], [0.25, 0.5, 0.25]])
CHAINS = {
    "the chain above": KNOWN,
    "a ring, always one on": np.roll(np.eye(4), 1, 1),
    "a walk on a line, which stays at its ends": np.array(
        [[0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0.5]]
    ),
    "a trap": np.array([[0.5, 0.5, 0.0], [0.2, 0.7, 0.1], [0.0, 0.0, 1.0]]),
}
STEPS, LEVELS = 100, 8
DATA = np.array([0.02, 0.4, 0.05, 0.03, 0.02, 0.06, 0.4, 0.02])
"""A law of eight levels with two modes, as pictures' levels have."""
MEAN, VARIANCE = 1.0, 0.25


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def numbers(values: np.ndarray) -> str:
    """Values to eight digits."""
    return ", ".join(f"{value:.8f}" for value in values)


def powers() -> list[str]:
    """The chain's powers, from three starts."""
    lines = [row("steps", "from 1", "from 2", "from 3", "largest distance"), row(*["---"] * 5)]
    pi = markov.stationary(KNOWN)
    for n in (1, 2, 5, 10, 20, 40, 80):
        power = np.linalg.matrix_power(KNOWN, n)
        shown = [", ".join(f"{value:.4f}" for value in one) for one in power]
        lines.append(row(n, *shown, f"{np.abs(power - pi).max():.1e}"))
    return lines


def kinds() -> list[str]:
    """What kind of chain each is."""
    lines = [row("chain", "classes", "never left", "period", "detailed balance"), row(*["---"] * 5)]
    for name, p in CHAINS.items():
        found = markov.classes(p)
        stays = [one for one in found if markov.closed(p, one)]
        states = lambda groups: "; ".join("{" + ", ".join(str(i + 1) for i in one) + "}" for one in groups)
        off = markov.balance(p)
        balance = "yes" if off < 1e-12 else f"no, off by {off:.3f}"
        lines.append(row(name, states(found), states(stays), markov.period(p), balance))
    return lines


def levels() -> tuple[list[str], dict[str, np.ndarray]]:
    """The forward chain of levels and its reverse, and the entropy along both."""
    lines = [
        row("chain", "closed form less product", "distance of q(x_T) from its end", "back at the data"),
        row(*["---"] * 4),
    ]
    curves = {}
    for kind in ("uniform", "gaussian"):
        of = categorical.chain(kind, LEVELS, STEPS)
        laws = [DATA]
        for step in of.one:
            laws.append(laws[-1] @ step)
        closed = max(np.abs(DATA @ whole - law).max() for whole, law in zip(of.all, laws, strict=True))
        back = laws[-1]
        for step, law in zip(of.one[::-1], laws[-2::-1], strict=True):
            back = back @ markov.reverse(step, law)
        end = np.abs(laws[-1] - of.last).max()
        lines.append(row(kind, f"{closed:.0e}", f"{end:.1e}", f"{np.abs(back - DATA).max():.0e}"))
        curves[f"{kind} chain of {LEVELS} levels"] = markov.entropy(np.stack(laws))
    return lines, curves


def gaussian() -> tuple[list[str], np.ndarray]:
    """The same in numbers: the variance-preserving chain of a Gaussian, step by step and by its closed form."""
    of = schedule.vp()
    times = np.linspace(0, 1, 1001)
    kept = of.alpha(times) ** 2 / (of.alpha(times) ** 2 + of.sigma(times) ** 2)
    kept = kept / kept[0]
    mean, variance = MEAN, VARIANCE
    lines = [row("step", "mean", "variance", "by the closed form", "entropy, bits"), row(*["---"] * 5)]
    entropies = [0.5 * np.log2(2 * np.pi * np.e * variance)]
    for n in range(1, 1001):
        ratio = kept[n] / kept[n - 1]
        mean, variance = np.sqrt(ratio) * mean, ratio * variance + 1 - ratio
        entropies.append(0.5 * np.log2(2 * np.pi * np.e * variance))
        if n in (1, 100, 250, 500, 1000):
            told = f"{np.sqrt(kept[n]) * MEAN:.6f}, {kept[n] * VARIANCE + 1 - kept[n]:.6f}"
            lines.append(row(n, f"{mean:.6f}", f"{variance:.6f}", told, f"{entropies[-1]:.4f}"))
    return lines, np.array(entropies)


def main() -> None:
    """Writes the page."""
    pi = markov.stationary(KNOWN)
    of_levels, curves = levels()
    of_gaussian, entropies = gaussian()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for name, curve in curves.items():
        axes[0].plot(np.linspace(0, 1, len(curve)), curve, label=name)
    axes[0].axhline(np.log2(LEVELS), color="grey", linewidth=0.8)
    axes[0].legend(fontsize=8)
    axes[1].plot(np.linspace(0, 1, len(entropies)), entropies, label=f"N({MEAN:g}, {VARIANCE:g}) in the VP chain")
    axes[1].axhline(0.5 * np.log2(2 * np.pi * np.e), color="grey", linewidth=0.8)
    axes[1].legend(fontsize=8)
    for axis in axes:
        axis.set_xlabel("t; read from right to left, the reverse process")
    axes[0].set_ylabel("entropy, bits")
    figure.savefig(DOCS / "markov.png", dpi=90)
    second = np.sort(np.abs(np.linalg.eigvals(KNOWN)))[-2]
    text = [
        "# From Markov chains to diffusion",
        "",
        "Made by `python scripts/markov_page.py`; the functions are in `jaxdiff/diffusion`.",
        "",
        "## A chain forgets where it began",
        "",
        "A chain moves from state i to j with probability P[i, j]; a law q of states becomes q P. For",
        "P = [[0.05, 0.75, 0.2], [0.8, 0.05, 0.15], [0.25, 0.5, 0.25]] the law that stays is",
        f"**[{numbers(pi)}]**, and the rows of P^n, the laws after n steps from each state, all go to it:",
        "",
        *powers(),
        "",
        f"The distance falls by the second largest eigenvalue, {second:.4f}, a step. The mean time of return to a",
        f"state is the inverse of its probability: {', '.join(f'{1 / one:.4f}' for one in pi)} steps.",
        "",
        "## When it does, and when it does not",
        "",
        "States that reach each other are a class; a class that is never left is recurrent, others are transient. With",
        "one class (irreducible) and no period every start leads to the one stationary law. In detailed balance the",
        "chain looks the same backwards.",
        "",
        *kinds(),
        "",
        "## The forward process is such a chain",
        "",
        f"Levels 0 to {LEVELS - 1} of a law with two modes, {STEPS} steps of D3PM's chains. q(x_t) step by step is",
        "that of the closed form, the product of the matrices; at the end the data are forgotten. Backwards, with",
        "Bayes' rule for the exact law at each step, the chain is back at the data:",
        "",
        *of_levels,
        "",
        "A network has to learn that reverse step, since of pictures the law at each step is not known.",
        "",
        "## The same for numbers",
        "",
        "x_t = sqrt(1 - b_t) x_{t-1} + sqrt(b_t) n is a chain whose stationary law is N(0, 1). From data",
        f"N({MEAN:g}, {VARIANCE:g}), with the VP schedule in 1000 steps, and by the closed form",
        "sqrt(a_t) m, a_t v + 1 - a_t with a_t = (1 - b_1) .. (1 - b_t):",
        "",
        *of_gaussian,
        "",
        "## Entropy along both",
        "",
        "![entropy along the chains](markov.png)",
        "",
        "Forwards the entropy rises to that of the stationary law (grey); the reverse runs down the same curve.",
        "The forward chain is there to forget; what is learned is to undo it, in steps so small that each is nearly",
        "certain.",
    ]
    (DOCS / "markov.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
