"""Families beside each other: each config trained at one budget, sampled and measured by what all others are.

Each run is a folder WORKDIR/NAME-SEED with `compare.json`: what was trained and measured. A command that was
interrupted resumes: runs that were measured are not made again, and one in training has the time that is left to it.
"""

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import experiment
from jaxdiff.data.grid import grid, save_png
from jaxdiff.evaluation.budget import Budget
from jaxdiff.evaluation.config import EvaluateConfig
from jaxdiff.evaluation.run import Counting, evaluate
from jaxdiff.experiment import Experiment
from jaxdiff.loading import load
from jaxdiff.metrics import speed
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.pipeline import HasLikelihood
from jaxdiff.training.workdir import write_text

MOST_STEPS = 10**7
"""Steps of a run that is bounded by time: so far away that a cosine has not begun to fall."""


def check(configs: Sequence[Experiment], budget: Budget) -> None:
    """Refuses what makes no sense before anything is trained.

    Raises:
      ValueError: names what is wrong.
    """
    names = [config.name for config in configs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two configs have the name {twice[0]}: a run's folder is named after its config")
    for name, least in (("steps", 0), ("seeds", 1), ("num", 1), ("batch_size", 1)):
        if getattr(budget, name) < least:
            raise ValueError(f"{name} is {getattr(budget, name)}: expected {least} or more")
    if not 0 < budget.minutes < math.inf:
        raise ValueError(f"minutes is {budget.minutes}: expected a number above 0")
    for config in configs:
        experiment.check(config)


def compare(
    configs: Sequence[Experiment],
    workdir: Path,
    budget: Budget,
    counting: Counting,
    say: Callable[[str], None] = print,
) -> str:
    """Trains, samples and measures; writes WORKDIR/results.json, results.md, results.png and NAME.png; gives the table.

    Args:
      configs: of the families, on the same data.
      workdir: gets a folder for each run.
      budget: of each run.
      counting: see `evaluation.run`.
      say: is told what is done.

    Raises:
      ValueError, OSError: as training and evaluation do.
    """
    check(configs, budget)
    rows: dict[str, list[dict[str, Any]]] = {}
    for config in configs:
        for seed in range(budget.seeds):
            place = workdir / f"{config.name}-{seed}"
            rows.setdefault(config.name, []).append(_one(config, seed, place, budget, counting, say))
        picture = next((workdir / f"{config.name}-0").glob("compare.png"))
        (workdir / f"{config.name}.png").write_bytes(picture.read_bytes())
    table = markdown(rows)
    write_text(workdir / "results.json", json.dumps({"machine": speed.machine(), "runs": rows}, indent=2) + "\n")
    text = [table, *(f"![samples of {name}]({name}.png)" for name in rows)]
    if plot(rows, workdir / "results.png"):
        text.insert(1, "![quality and speed](results.png)")
    write_text(workdir / "results.md", "\n\n".join(text) + "\n")
    return table


def _one(
    config: Experiment, seed: int, place: Path, budget: Budget, counting: Counting, say: Callable[[str], None]
) -> dict[str, Any]:
    """Returns what is known of one run, which is made as far as it is not there."""
    file = place / "compare.json"
    known = json.loads(file.read_text()) if file.is_file() else {"seconds": 0.0, "budget": _plain(budget)}
    if known["budget"] != _plain(budget):
        raise ValueError(f"{file} is of another budget: choose another --workdir, or delete {place}")
    if "metrics" in known:
        say(f"{place}: measured before")
        return known
    steps = budget.steps or MOST_STEPS
    train = dataclasses.replace(config.train, steps=steps, preview_every=0)
    known = _train(dataclasses.replace(config, seed=seed, train=train), place, budget, known, say)
    pipe = load(place, "pmap")
    metrics = (*budget.metrics, *likelihoods(pipe))
    measured = EvaluateConfig(
        model=str(place),
        workdir=place / "evaluation",
        metrics=metrics,
        num=budget.num,
        width=budget.width,
        split=config.held_out or config.data.split,
        reference=config.data.name,
        subset=config.data.subset,
        data_dir=config.data.dir,
        batch_size=budget.batch_size,
        resamples=0,
        guidance=1.0,
    )
    evaluate(measured, counting, say)
    told = json.loads((place / "evaluation" / "results.json").read_text())["metrics"]
    known["metrics"] = {name: value["value"] for name, value in told.items()}
    known["calls"] = pipe.calls(measured.sampler, measured.steps) if isinstance(pipe, DiffusionPipeline) else pipe.calls
    known["pictures_per_second"] = _draw(pipe, place, budget)
    write_text(file, json.dumps(known, indent=2) + "\n")
    return known


def likelihoods(pipe: Any) -> tuple[str, ...]:
    """Returns the metric of a model's likelihood; none where it has none."""
    if isinstance(pipe, HasLikelihood):
        return ("bits",)
    pixels = isinstance(pipe, DiffusionPipeline) and "vae" not in pipe.model.nets
    return ("bound",) if pixels and pipe.model.process.says != "consistency" else ()


def _train(
    config: Experiment, place: Path, budget: Budget, known: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Trains until the budget is spent; the seconds that were, are kept through interruptions."""
    began: list[float] = []
    before = known["seconds"]

    def report(step: int, metrics: Mapping[str, float]) -> None:
        began.append(time.perf_counter())  # the first step ends when all is compiled
        known.update(seconds=before + began[-1] - began[0], steps=step)
        if not budget.steps and known["seconds"] >= 60 * budget.minutes:
            signal.raise_signal(signal.SIGTERM)
        del began[1:]

    if not known.get("trained"):
        place.mkdir(parents=True, exist_ok=True)
        try:
            state = experiment.run(config, place, report, say)
        finally:
            write_text(place / "compare.json", json.dumps(known, indent=2) + "\n")
        spent = int(state.step) >= config.train.steps or known["seconds"] >= 60 * budget.minutes
        if not spent:
            raise KeyboardInterrupt  # another signal than ours
        known |= {"trained": True, "parameters": int(sum(x.size for x in jax.tree.leaves(state.params)))}
        known["examples_per_second"] = config.train.batch_size * known["steps"] / max(known["seconds"], 1e-9)
        write_text(place / "compare.json", json.dumps(known, indent=2) + "\n")
    return known


def _draw(pipe: Any, place: Path, budget: Budget) -> float:
    """Writes a sheet of pictures; gives how many are drawn in a second by a program that is compiled."""
    count = budget.batch_size * jax.device_count()
    labels = getattr(pipe, "labels", ()) or [""]
    prompts = [labels[i % len(labels)] for i in range(count)]
    pipe(prompts, key=jax.random.key(1))
    start = time.perf_counter()
    images = pipe(prompts, key=jax.random.key(0))
    rate = count / (time.perf_counter() - start)
    save_png(place / "compare.png", grid(np.asarray(images)[:16], prompts[:16]), {"run": str(place)})
    return rate


def _plain(budget: Budget) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(budget)))


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

    def told(values: Sequence[Any]) -> str:
        spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
        return f"{np.mean(values):.4g}{spread}" if values else "none"

    lines = [heads, ["---"] * len(heads)]
    for name, runs in rows.items():
        kinds = [kind for kind in runs[0]["metrics"] if kind.startswith("bits/dim")]
        of = lambda key, runs=runs: told([run[key] for run in runs])
        metric = lambda key, runs=runs: told([run["metrics"][key] for run in runs if key in run["metrics"]])
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
