"""Families beside each other: each config trained at one budget, sampled and measured by what all others are.

Each run is a folder WORKDIR/NAME-SEED with `compare.json`: what was trained and measured. A command that was
interrupted resumes: runs that were measured are not made again, and one in training has the time that its last
checkpoint left to it, however it was stopped.
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

from jaxdiff import data, experiment, trainer
from jaxdiff.data.grid import grid, save_png
from jaxdiff.evaluation import compare_table
from jaxdiff.evaluation.budget import Budget
from jaxdiff.evaluation.config import EvaluateConfig
from jaxdiff.evaluation.run import Counting, evaluate
from jaxdiff.experiment import Experiment
from jaxdiff.loading import load
from jaxdiff.metrics import speed
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.pipeline import HasLikelihood
from jaxdiff.tasks import saved
from jaxdiff.training import checkpoint, make_init_state
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
    if not 0 <= budget.flops < math.inf:
        raise ValueError(f"flops is {budget.flops}: expected a number of at least 0")
    if budget.steps and budget.flops:
        raise ValueError(f"steps is {budget.steps} and flops {budget.flops:g}: give one of them")
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
      configs: configs of the families, on the same data.
      workdir: gets a folder for each run.
      budget: budget of each run.
      counting: see `evaluation.run`.
      say: called with what is done.

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
    table = compare_table.markdown(rows)
    write_text(workdir / "results.json", json.dumps({"machine": speed.machine(), "runs": rows}, indent=2) + "\n")
    text = [table, *(f"![samples of {name}]({name}.png)" for name in rows)]
    if compare_table.plot(rows, workdir / "results.png"):
        text.insert(1, "![quality and speed](results.png)")
    write_text(workdir / "results.md", "\n\n".join(text) + "\n")
    return table


def _one(
    config: Experiment, seed: int, place: Path, budget: Budget, counting: Counting, say: Callable[[str], None]
) -> dict[str, Any]:
    """Returns what is known of one run, which is made as far as it is not there."""
    file = place / "compare.json"
    known = json.loads(file.read_text()) if file.is_file() else {"at": {}, "budget": _plain(budget)}
    if known["budget"] != _plain(budget):
        raise ValueError(f"{file} is of another budget: choose another --workdir, or delete {place}")
    if "metrics" in known:
        say(f"{place}: measured before")
        return known
    known = _train(_bounded(config, seed, place, budget), place, budget, known, say)
    pipe = load(place, "pmap")
    known["metrics"] = {}
    measured = EvaluateConfig(
        model=str(place),
        workdir=place / "evaluation",
        metrics=(*budget.metrics, *likelihoods(pipe)),
        num=budget.num,
        width=budget.width,
        split=budget.split,
        reference=config.data.name,
        subset=config.data.subset,
        data_dir=config.data.dir,
        batch_size=budget.batch_size,
        resamples=0,
        guidance=1.0,
        bound_steps=100,
    )
    if measured.metrics:
        evaluate(measured, counting, say)
        metrics = json.loads((place / "evaluation" / "results.json").read_text())["metrics"]
        known["metrics"] = {name: value["value"] for name, value in metrics.items()}
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


def _bounded(config: Experiment, seed: int, place: Path, budget: Budget) -> Experiment:
    """Returns the run of a seed, of as many steps as the budget has; what is measured, is measured afterwards."""
    steps = max(1, int(budget.flops / step_flops(config, place))) if budget.flops else budget.steps or MOST_STEPS
    train = dataclasses.replace(config.train, steps=steps, preview_every=0)
    kept = dataclasses.replace(config.checkpoint, best="")
    return dataclasses.replace(config, seed=seed, held_out="", train=train, checkpoint=kept)


def step_flops(config: Experiment, place: Path) -> float:
    """Returns the floating-point operations of a training step, counted in what is traced."""
    place.mkdir(parents=True, exist_ok=True)
    task = config.task.task(config.task.assets(place, config.data, data.open_source(config.data), new=True))
    batch = saved.blank(task, config.data.size, config.train.batch_size)
    optimizer, make = trainer.make_step(config, task)
    state = jax.eval_shape(make_init_state(task, optimizer), jax.random.key(0), {}, batch)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), config.train.batch_size))
    return speed.work(jax.make_jaxpr(make())(state, batch, keys)).flops


def _train(
    config: Experiment, place: Path, budget: Budget, known: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Trains until the budget is spent; `known["at"]` has the seconds of each checkpoint, from which it goes on."""
    if known.get("trained"):
        return known
    began: list[float] = []
    file, at = place / "compare.json", known["at"]
    last = checkpoint.steps(place / "checkpoints")
    before = at.get(str(last[-1]), 0.0) if last else 0.0
    known.update(seconds=before, steps=last[-1] if last else 0)
    bounded = not (budget.steps or budget.flops)
    spent = lambda: known["steps"] >= config.train.steps or (bounded and known["seconds"] >= 60 * budget.minutes)

    def note() -> None:
        at[str(known["steps"])] = known["seconds"]
        write_text(file, json.dumps(known, indent=2) + "\n")

    def report(step: int, metrics: Mapping[str, float]) -> None:
        now = time.perf_counter()  # the first step ends when all is compiled
        began.append(now)
        known.update(seconds=before + now - began[0], steps=step)
        if config.checkpoint.every and step % config.checkpoint.every == 0:
            note()
        if spent() and step < config.train.steps:
            signal.raise_signal(signal.SIGTERM)
        del began[1:]

    place.mkdir(parents=True, exist_ok=True)
    try:
        state = trainer.run(config, place, report, say)
    finally:
        note()
    if not spent():
        raise KeyboardInterrupt  # another signal than ours
    known |= {"trained": True, "parameters": int(sum(x.size for x in jax.tree.leaves(state.params)))}
    known["examples_per_second"] = config.train.batch_size * known["steps"] / max(known["seconds"], 1e-9)
    known["flops"] = step_flops(config, place) * known["steps"]
    write_text(file, json.dumps(known, indent=2) + "\n")
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
