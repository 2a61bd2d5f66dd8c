"""A training run: its config, the checks that span its fields, its JSON beside the checkpoints, and running it."""

import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxdiff import data, kinds, parallel, training
from jaxdiff.data import sound
from jaxdiff.data.grid import grid, save_png
from jaxdiff.data.sound import spectrogram
from jaxdiff.data.source import DataConfig
from jaxdiff.data.source import check as check_data
from jaxdiff.metrics import chips, speed
from jaxdiff.parallel import MeshSpec, executable
from jaxdiff.pretrained.files import read_json
from jaxdiff.tasks import TaskConfig, saved
from jaxdiff.training import CheckpointConfig, OptimizerConfig, Task, TrainConfig, TrainState, Variables, programs
from jaxdiff.training import checkpoint as checkpoints
from jaxdiff.training import optimizer as optimizers
from jaxdiff.training.evaluate import averaged
from jaxdiff.training.workdir import lock, write_text
from jaxdiff.typing import Batch, Metrics, Params

Spec = MeshSpec | Literal["pmap"]
Report = Callable[[int, Metrics], None]


@dataclasses.dataclass(frozen=True)
class PreviewConfig:
    """The options common to the previews of all tasks.

    Attributes:
      seed: the same for every preview of a run.
    """

    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a training run is made of.

    Attributes:
      name: name of the run; its default workdir is runs/NAME.
      task: kind of model that is trained; see `jaxdiff.tasks`.
      seed: seed of the weights, the data order and the noise.
      strategy: how devices share the work: a mesh, or pmap (a full copy of the model on each device).
      ema: decay of the moving average of the weights, from which samples are drawn.
      held_out: split whose loss under the averaged weights, `ema_loss`, is measured before each checkpoint and can rank
        them (--checkpoint.best ema_loss); empty measures nothing.
      held_out_batches: number of its batches that are measured, always the same ones with the same noise.
    """

    name: str
    task: TaskConfig
    seed: int = 0
    strategy: Literal["mesh", "pmap"] = "mesh"
    ema: float = 0.9999
    held_out: str = ""
    held_out_batches: int = 4
    mesh: MeshSpec = MeshSpec()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    preview: PreviewConfig = PreviewConfig()

    @property
    def spec(self) -> Spec:
        """Returns how devices share the work, as `parallel.compile` takes it."""
        return "pmap" if self.strategy == "pmap" else self.mesh


LEAST = {
    "train.steps": 1,
    "train.batch_size": 1,
    "train.accumulate": 1,
    "train.log_every": 1,
    "train.spike": 0,
    "train.preview_every": 0,
    "checkpoint.every": 0,
    "checkpoint.keep": 1,
    "held_out_batches": 1,
}
"""The least that counts may be."""


def check(config: Experiment, devices: int | None = None) -> None:
    """Makes every check that needs no data and no compiling.

    Args:
      config: config of the run.
      devices: that it is for; None: as many as are here.

    Raises:
      ValueError: the message names the fields, what they are, and what to do.
    """
    kinds.from_json(Experiment, to_json(config))  # a config file is Python: its values may be of any type
    for path, least in LEAST.items():
        value: Any = functools.reduce(getattr, path.split("."), config)
        if value < least:
            raise ValueError(f"{path} is {value}: expected {least} or more")
    for path, seed in (("seed", config.seed), ("preview.seed", config.preview.seed)):
        if not 0 <= seed < 2**32:
            raise ValueError(f"{path} is {seed}: expected 0 to {2**32 - 1}")
    check_data(config.data)
    optimizers.check(config.optimizer, config.train.steps)
    training.make_ema(config.ema)
    if config.checkpoint.best == "ema_loss" and not config.held_out:
        raise ValueError("checkpoint.best is 'ema_loss', which is measured on held_out, and that is empty: try 'test'")
    devices = jax.device_count() if devices is None else devices
    if config.strategy == "mesh":
        copies, split, _ = config.mesh.sizes(devices)
        devices = copies * split
    if config.train.batch_size % (devices * config.train.accumulate):
        raise ValueError(
            f"train.batch_size is {config.train.batch_size}, which does not divide by {devices} devices x "
            f"train.accumulate {config.train.accumulate}: choose a multiple of {devices * config.train.accumulate}"
        )
    config.task.check(config.data, config.optimizer)
    config.task.check_steps(config.train.steps)
    config.task.check_batch(config.train.batch_size, config.train.accumulate)


def to_json(config: Experiment) -> str:
    """Writes the config as JSON; `from_json` reads it back."""
    return kinds.to_json(config)


def from_json(text: str) -> Experiment:
    """Reads what `to_json` wrote, today or when a run had the fields of one model.

    Raises:
      ValueError: if a field is unknown, or its value none that it may have; says its path.
    """
    try:
        saved = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error}") from None
    saved = _today(saved) if isinstance(saved, dict) and "task" not in saved else saved
    return kinds.build(Experiment, _named_remat(saved))


def _today(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Updates a config from before there were tasks, when all were of pictures."""
    saved = dict(saved)
    process, preview = dict(saved.pop("process", {})), dict(saved.pop("preview", {}))
    task: dict[str, Any] = {"kind": "picture", "process": process, "preview": preview}
    task["net"] = {"kind": "unet", **saved.pop("unet", {})}
    task |= {name: saved.pop(name) for name in ("text", "vocabulary") if name in saved}
    task |= {name: process.pop(name) for name in ("condition", "drop") if name in process}
    seed = {"seed": preview.pop("seed")} if "seed" in preview else {}
    return {**saved, "task": task, "preview": seed}


def _named_remat(saved: Any) -> Any:
    """Updates a config from when `remat` was true or false, and not the name of what is computed again."""
    if not isinstance(saved, dict):
        return saved
    names = {True: "blocks", False: "none"}
    value = lambda name, x: names[x] if name == "remat" and isinstance(x, bool) else _named_remat(x)
    return {name: value(name, x) for name, x in saved.items()}


def read(workdir: Path) -> Experiment:
    """Reads the config of a run.

    Raises:
      FileNotFoundError: if `workdir` is not a run's.
      ValueError: if its config.json is damaged, or of a kind of task that is not installed.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} is not a run of `jaxdiff train`: it has no config.json")
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class Run(NamedTuple):
    """A run that was trained.

    Attributes:
      config: config of the run.
      assets: what `config.task.assets` read.
      weights: with the averaged parameters.
    """

    config: Experiment
    assets: Any
    weights: Variables


def open_run(path: Path | str, place: Callable[[Params], Any] | None = None) -> Run:
    """Reads a run of `jaxdiff train`, or one of its checkpoints.

    Args:
      path: the workdir, whose last checkpoint is taken, or WORKDIR/checkpoints/STEP.
      place: tree of shapes -> tree of shardings of the weights; None: one device.

    Raises:
      FileNotFoundError: if `path` is neither, or there is no checkpoint yet.
      MismatchError: if the checkpoint is not of the architecture that its config describes.
    """
    path = Path(path)
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    if not folder.is_dir():
        raise FileNotFoundError(f"no model directory at {path}: give the workdir of a run of `jaxdiff train`")
    if not (folder / "config.json").is_file():
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(
            f"{folder} is not a model: it has neither model_index.json (diffusers) nor config.json and checkpoints (a "
            f"run of `jaxdiff train`), but {there}"
        )
    if kind := read_json(folder / "config.json").get("_class_name"):
        raise FileNotFoundError(
            f"{folder} is not a model but one part of one, a {kind}: give the directory above it, with "
            "model_index.json; or the model, and this as its controlnet, adapter or vae"
        )
    config = read(folder)
    assets = config.task.assets(folder, config.data)
    with _named(folder / "config.json"):
        task = config.task.sampled().task(assets)
        return Run(config, assets, saved.read_weights(path, task, config.data.size, place))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Adds the file of a config to errors about its numbers."""
    try:
        yield
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        if str(path.parent) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


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
      say: is told, by process 0, what is being done.
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
    skip = None
    if config.train.faults == "skip":
        optimizer, skip = training.guarded(optimizer), config.train.spike
    return optimizer, functools.partial(
        training.make_train_step,
        task,
        optimizer,
        training.make_ema(config.ema),
        accumulate=config.train.accumulate,
        skip=skip,
    )


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
    fields["train"] = {name: fields["train"][name] for name in ("steps", "batch_size", "accumulate")}
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
