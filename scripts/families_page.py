"""Makes docs/families.md: every family at one budget, measured by one command, and what the surveys claim of them.

    python scripts/families_page.py --minutes 1 --seeds 3

All options but --workdir are those of `jaxdiff compare`, which it runs first; the command resumes one that was
interrupted. The page's sentences are made of the numbers, so that they stay true.
"""

import argparse
import json
import pathlib
import shutil

import numpy as np

from jaxdiff.cli.main import main as jaxdiff
from jaxdiff.evaluation.compare_table import markdown

TOP = pathlib.Path(__file__).parents[1]
DOCS = TOP / "docs"
FAMILIES = {
    "autoregressive": "autoregressive",
    "flow": "flows",
    "gan": "GANs",
    "vae": "VAEs",
    "d3pm": "diffusion",
    "picture": "diffusion",
}
"""The family of each kind of task."""
ELSEWHERE = ("beta_vae",)
"""Configs whose pictures are others."""


def family(workdir: pathlib.Path, name: str) -> str:
    """The family of a run."""
    return FAMILIES[json.loads((workdir / f"{name}-0" / "config.json").read_text())["task"]["kind"]]


def column(runs: dict, groups: dict, key: str) -> dict[str, float]:
    """The mean of a number of each family, over its configs and seeds; `key` is its name or how that begins."""
    told: dict[str, list[float]] = {}
    for name, seeds in runs.items():
        for run in seeds:
            numbers = {**run["metrics"], "pictures_per_second": run["pictures_per_second"], "calls": run["calls"]}
            found = [value for label, value in numbers.items() if label.startswith(key)]
            told.setdefault(groups[name], []).extend(found)
    return {name: float(np.mean(values)) for name, values in told.items() if values}


def ranked(values: dict[str, float], shown: str = "{:.3g}", most_first: bool = True) -> str:
    """Families and their numbers, in order."""
    order = sorted(values, key=values.__getitem__, reverse=most_first)
    return ", ".join(f"{name} {shown.format(values[name])}" for name in order)


def verdict(held: bool) -> str:
    """Whether a claim held."""
    return "Here it held." if held else "Here, at this budget, it did not hold."


def speed(runs: dict, groups: dict) -> list[str]:
    """What is claimed of speed."""
    rate = column(runs, groups, "pictures_per_second")
    once = {name for name in rate if max(run["calls"] for one in runs if groups[one] == name for run in runs[one]) == 1}
    many = rate.keys() - once
    held = bool(once) and bool(many) and min(rate[name] for name in once) > max(rate[name] for name in many)
    return [
        "**Speed.** Claimed: GANs, VAEs and flows of couplings draw in one call of a network and are fast; diffusion "
        "takes tens to a thousand calls, autoregressive models one for each number, so that they are slow.",
        f"Measured, pictures a second, the mean of each family: {ranked(rate)}. {verdict(held)}",
    ]


def likelihood(runs: dict, groups: dict) -> list[str]:
    """What is claimed of likelihood; numbers are compared only where they are of pictures with the same levels."""
    lines = [
        "**Likelihood.** Claimed: autoregressive models have the best and know it exactly, flows know theirs but for "
        "the dequantisation, VAEs and diffusion bound it, GANs have none.",
    ]
    alike: dict[str, dict[str, float]] = {}
    for name, seeds in runs.items():
        for label, value in seeds[0]["metrics"].items():
            if label.startswith("bits/dim"):
                of = [part.strip(" )") for part in label.partition("(")[2].split(",")]
                pictures = ", ".join(part for part in of if part == "grey" or part.endswith("levels"))
                told = float(np.mean([run["metrics"][label] for run in seeds]))
                alike.setdefault(pictures or "colour, 256 levels", {})[name] = told if value is not None else np.inf
    for pictures, values in alike.items():
        if len(values) > 1:
            best = groups[min(values, key=values.__getitem__)]
            lines.append(f"Bits/dim of pictures that are {pictures}: {ranked(values, most_first=False)}.")
            if "autoregressive" in {groups[name] for name in values}:
                lines.append(verdict(best == "autoregressive"))
    without = [name for name in groups if not any(label.startswith("bits") for label in runs[name][0]["metrics"])]
    lines.append(f"Without a likelihood: {', '.join(without) or 'none'}.")
    return lines


def diversity(runs: dict, groups: dict) -> list[str]:
    """What is claimed of diversity."""
    precision, recall = column(runs, groups, "precision"), column(runs, groups, "recall")
    lines = [
        "**Diversity and quality.** Claimed: GANs draw good pictures and forget parts of the data; models that are "
        "trained by a likelihood cover the data and draw worse ones.",
        f"Measured: precision {ranked(precision)}; recall {ranked(recall)}.",
    ]
    others = [value for name, value in recall.items() if name != "GANs"]
    if recall and max(recall.values()) < 0.01:
        lines.append("Nothing covers the data yet: at this budget it cannot be told.")
    elif "GANs" in recall and others:
        lines.append(verdict(recall["GANs"] < np.mean(others) and precision["GANs"] > np.mean([*precision.values()])))
    return lines


def stability(runs: dict, groups: dict) -> list[str]:
    """What is claimed of stability: the spread over seeds of the first distance, relative to its mean."""
    first = next((label for label in next(iter(runs.values()))[0]["metrics"] if not label.startswith("bits")), None)
    if first is None or min(map(len, runs.values())) < 2:
        return ["**Stability.** Not measured: it takes several seeds and a distance."]
    spread: dict[str, list[float]] = {}
    for name, seeds in runs.items():
        values = [run["metrics"][first] for run in seeds]
        spread.setdefault(groups[name], []).append(float(np.std(values, ddof=1) / abs(np.mean(values))))
    mean = {name: float(np.mean(values)) for name, values in spread.items()}
    ends = {name: [run["metrics"][first] for run in seeds] for name, seeds in runs.items()}
    apart = [
        f"{name} ({min(values):.4g} to {max(values):.4g})"
        for name, values in ends.items()
        if max(values) > 2 * min(values)
    ]
    return [
        "**Stability.** Claimed: GANs are the hardest to train, and differ most from run to run.",
        f"Measured, the deviation over seeds of the {first}, as a part of its mean: {ranked(mean)}. "
        + (verdict(max(mean, key=mean.__getitem__) == "GANs") if "GANs" in mean else ""),
        f"Models whose seeds lie more than a factor of two apart, so that one failed: {', '.join(apart) or 'none'}.",
    ]


def page(workdir: pathlib.Path, command: str) -> list[str]:
    """The lines of the page."""
    told = json.loads((workdir / "results.json").read_text())
    runs, machine = told["runs"], told["machine"]
    groups = {name: family(workdir, name) for name in runs}
    first = next(iter(runs.values()))[0]
    budget, of = first["budget"], json.loads((workdir / f"{next(iter(runs))}-0" / "config.json").read_text())["data"]
    spent = f"{budget['steps']} steps" if budget["steps"] else f"{60 * budget['minutes']:.0f} seconds"
    return [
        "# Every family of generative models, on the same pictures, in one table",
        "",
        f"Made by `{command}`, on {machine.get('cpu') or machine}.",
        "",
        f"{len(runs)} models in {len(set(groups.values()))} families, {budget['seeds']} seeds each; each was trained "
        f"for {spent} without compiling, on {of['name']} ({of['subset']}) at {of['size']}x{of['size']}, drew "
        f"{budget['num']} pictures, and was compared with the split {budget['split']!r}. A budget so small tells how "
        "fast a family learns, and not how well it ends: the papers' figures, in the header of each config, took days "
        "of many devices. Distances are of the features named there, and compare with no paper's. Models of grey "
        "pictures or of few levels, as the last column says, are measured against the pictures as they are.",
        "",
        markdown(runs),
        "",
        *(["![quality and speed](families/results.png)", ""] if (workdir / "results.png").is_file() else []),
        "## What surveys claim, and what was measured",
        "",
        "Claims as in Bond-Taylor et al. 2022 (arXiv 2103.04922) and Xiao et al. 2022 (arXiv 2112.07804, the "
        '"trilemma" of quality, diversity and speed).',
        "",
        *(line for part in (speed, likelihood, diversity, stability) for line in (*part(runs, groups), "")),
        "## Samples",
        "",
        "The first 16 pictures of each model's first seed, none chosen.",
        "",
        *(f"**{name}** ({groups[name]})\n\n![samples of {name}](families/{name}.png)\n" for name in runs),
    ]


def main() -> None:
    """Compares, and writes the page with its pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=pathlib.Path, default=TOP / "runs" / "families")
    parser.add_argument("--docs", type=pathlib.Path, default=DOCS)
    parser.add_argument("--families", nargs="*", default=[])
    args, rest = parser.parse_known_args()
    found = sorted(path.stem for path in (TOP / "configs" / "families").glob("*.py"))
    names = args.families or [name for name in found if name not in ELSEWHERE]
    options = ["--data", "openmoji", "--subset", "plain", "--size", "16", "--num", "160", "--width", "112", *rest]
    configs = [str(TOP / "configs" / "families" / f"{name}.py") for name in names]
    jaxdiff(["compare", *configs, "--workdir", str(args.workdir), *options])
    (args.docs / "families").mkdir(parents=True, exist_ok=True)
    for path in args.workdir.glob("*.png"):
        shutil.copy(path, args.docs / "families")
    chosen = ["--families", *args.families] if args.families else []
    command = " ".join(["python scripts/families_page.py", *chosen, *rest])
    (args.docs / "families.md").write_text("\n".join(page(args.workdir, command)).rstrip() + "\n")


if __name__ == "__main__":
    main()
