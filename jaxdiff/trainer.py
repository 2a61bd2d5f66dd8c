"""Trains an experiment: its programs, its data, its previews, and the run in its workdir."""

import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import data, kinds, parallel, training
from jaxdiff.data import sound
from jaxdiff.data.grid import grid, save_png
from jaxdiff.data.sound import spectrogram
from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment, check, to_json
from jaxdiff.metrics import chips, speed
from jaxdiff.parallel import executable
from jaxdiff.tasks import saved
from jaxdiff.training import Task, TrainState, Variables, programs
from jaxdiff.training import checkpoint as checkpoints
from jaxdiff.training.evaluate import averaged
from jaxdiff.training.workdir import lock, write_text
from jaxdiff.typing import Batch, Metrics

Report = Callable[[int, Metrics], None]


def run(
    config: Experiment,
    workdir: Path | str,
    report: Report | None = None,
    say: Callable[[str], None] = lambda text: None,
    ready: executable.Saved | None = None,
    profile: tuple[int, int] | None = None,
) -> TrainState:
    """Trains until `config.train.steps`, from the last checkpoint in `workdir` if there is one.

    Args:
      config: what to train.
      workdir: gets config.json, the task's own files, checkpoints/, samples/, metrics.jsonl and tensorboard/. Nothing
        of an older run is changed before it is sure that this one can resume it.
      report: called by process 0 after each step with its number and metrics; see `training.fit`.
      say: called by process 0 with what is being done.
      ready: compiled programs of a dry run of the same config.
      profile: the first and last step of this start that are traced, into WORKDIR/profile.

    Raises:
      ValueError, OSError: for whatever in the config, the data or the workdir does not serve.
      FloatingPointError: if the run diverges; see `training.fit`.
    """
    check(config)
    workdir, first = Path(workdir), jax.process_index() == 0
    say = say if first else lambda text: None
    source = data.open_source(config.data)
    if ready and config.strategy == "pmap":
        raise ValueError("--executable is for the mesh strategy, and strategy is 'pmap'")
    with lock(workdir):
        saved = checkpoints.steps(workdir / "checkpoints")
        if ready and not saved:
            ready.begin("init")
        assets = config.task.assets(workdir, config.data, source, new=not saved)
        task = config.task.task(assets, config.spec)
        with contextlib.closing(_stream(config, task, source, config.data, config.seed)) as stream:
            described = programs.described(task, ready.notes["variables"]) if ready else task
            program, evaluate = _programs(config, described, stream)
            if ready:
                of_run = programs.arguments(program, config.train.batch_size)
                ready.check(executable_key(config, of_run, program.mesh))
                program = programs.loaded(program, ready, config.train.batch_size)
            count = sum(leaf.size for leaf in jax.tree.leaves(program.like.params))
            say(
                f"{config.name}: {len(source)} pictures, {count / 1e6:.2f}M parameters, {jax.device_count()} "
                f"{jax.devices()[0].platform} device(s), {config.strategy}; writes to {workdir}"
            )
            if not ready and (not saved or saved[-1] < config.train.steps):
                say("compiling the training step: the first start of a model takes a while, later ones are faster")
            return training.fit(
                program,
                stream,
                jax.random.key(config.seed),
                workdir,
                config.train,
                config.checkpoint,
                ready=lambda: write_text(workdir / "config.json", to_json(config)),
                report=report if first else None,
                preview=_previewer(config, task, workdir, say) if task.previews else None,
                evaluate=evaluate,
                profile=profile,
                at_peak=lambda: _at_peak(program, ready.notes["flops"] if ready else None, config, assets),
            )


def _stream(config: Experiment, task: Task, source: data.Source, of: DataConfig, seed: int) -> data.Batches:
    return data.batches(
        source,
        of,
        batch_size=config.train.batch_size,
        seed=seed,
        example=task.example,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def make_step(config: Experiment, task: Task) -> tuple[Any, Callable[..., Any]]:
    """Returns the optimizer of a run, and what makes its step: (reduce=f) -> step, as `parallel.compile` calls it."""
    optimizer = training.make_optimizer(config.optimizer, config.train.steps, task.groups)
    skip = _skip(config)
    if skip is not None:
        optimizer = training.guarded(optimizer)
    return optimizer, functools.partial(
        training.make_train_step,
        task,
        optimizer,
        training.make_ema(config.ema),
        accumulate=config.train.accumulate,
        skip=skip,
    )


def _skip(config: Experiment) -> float | None:
    """Returns the multiple of the usual gradient from which the step itself skips an update; None: it skips none."""
    return config.train.spike if config.train.faults == "skip" else None


def _programs(config: Experiment, task: Task, stream: data.Batches) -> tuple[parallel.Program, Any]:
    """Compiles the training step, and what measures the held-out loss, or None."""
    optimizer, step = make_step(config, task)
    start = stream.get_state()
    batch = next(stream)
    stream.set_state(start)
    compiled = functools.partial(
        parallel.compile,
        init_state=training.make_init_state(task, optimizer),
        loaded=task.load(parallel.place(config.spec, task.rules)),
        batch=batch,
        spec=config.spec,
        rules=task.rules,
    )
    program = compiled(step)
    if not config.held_out:
        return program, None
    held_data = dataclasses.replace(config.data, split=config.held_out, flip=False)
    held_source = data.open_source(held_data)

    def held_out() -> Iterator[Batch]:
        with contextlib.closing(_stream(config, task, held_source, held_data, 0)) as own:
            yield from itertools.islice(own, config.held_out_batches)

    measure = compiled(functools.partial(training.make_eval_step, task))
    return program, training.make_evaluate(measure, held_out, jax.random.key(1), config.train.batch_size, task.summary)


def executable_key(config: Experiment, arguments: Any, mesh: Any) -> dict[str, Any]:
    """Returns what a compiled training step depends on: shapes, devices, and the config as far as it is in there."""
    fields = json.loads(to_json(config))
    for name in ("name", "seed", "held_out", "held_out_batches", "data", "checkpoint", "preview"):
        del fields[name]
    fields["task"].pop("preview", None)
    train = {name: fields["train"][name] for name in ("steps", "batch_size", "accumulate")}
    fields["train"] = {**train, "skip": _skip(config)}
    kind = mesh.abstract_mesh.abstract_device.device_kind
    return executable.key(json.dumps(fields, sort_keys=True), arguments, mesh, kind)


def _at_peak(program: parallel.Program, flops: float | None, config: Experiment, assets: Any) -> float | None:
    """Returns the seconds that a step's products would take at the devices' published peak, if one is known.

    Args:
      program: of the run.
      flops: of the step; None: counted in a trace of it.
      config: config of the run.
      assets: what its task read.
    """
    chip = chips.by_kind(program.mesh.devices.flat[0].device_kind)
    if chip is None:
        return None
    if flops is None:
        task, count = config.task.task(assets), config.train.batch_size  # traced as of one program
        row = saved.blank(task, config.data.size)
        batch = {name: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype) for name, x in row.items()}
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
        asked = speed.trace(make_step(config, task)[1](), (program.like, batch, keys), program.mesh, "none")
        flops = speed.work(asked).flops - speed.recomputed(asked.jaxpr)
    return flops / (chip.flops * program.mesh.size)


def _previewer(
    config: Experiment, task: Task, workdir: Path, say: Callable[[str], None]
) -> Callable[[int, TrainState], dict[str, np.ndarray]]:
    """Writes samples/NAME/STEP.png, and of sounds samples/NAME/STEP/0.wav and so on; returns the pictures by name.

    Every process enters the program, and process 0 writes.
    """

    def preview(step: int, state: TrainState) -> dict[str, np.ndarray]:
        shown = {}
        weights = Variables(averaged(state), state.frozen, state.extra)
        for name, make in task.previews.items():
            drawn = make(weights, jax.random.key(config.preview.seed))
            path = workdir / "samples" / name / f"{step:06d}.png"
            sounds = drawn.arrays if drawn.kind == "sound" else ()
            pictures = np.stack([spectrogram(one) for one in sounds]) if len(sounds) else drawn.arrays
            sheet = grid(pictures, drawn.captions)
            if jax.process_index() == 0:
                for i, one in enumerate(sounds):
                    sound.write(path.with_suffix("") / f"{i}.wav", one, drawn.rate)
                origin = {"step": step, "task": json.loads(kinds.to_json(config.task)), "seed": config.preview.seed}
                save_png(path, sheet, origin)
            shown[f"samples/{name}"] = np.asarray(sheet)
            say(f"step {step}: {path}")
        return shown

    return preview
