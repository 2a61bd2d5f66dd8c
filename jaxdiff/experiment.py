"""A training run: its config, the checks that span its fields, its JSON beside the checkpoints, and reading it."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from jaxdiff import kinds, training
from jaxdiff.data.source import DataConfig
from jaxdiff.data.source import check as check_data
from jaxdiff.parallel import MeshSpec
from jaxdiff.pretrained.files import read_json
from jaxdiff.tasks import TaskConfig, saved
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig, Variables
from jaxdiff.training import optimizer as optimizers
from jaxdiff.typing import Params

Spec = MeshSpec | Literal["pmap"]


@dataclasses.dataclass(frozen=True)
class PreviewConfig:
    """The options common to the previews of all tasks.

    Attributes:
      seed: seed of the previews, one for all of a run.
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
