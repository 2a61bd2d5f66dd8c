"""What a training run is: frozen dataclasses, their JSON beside the checkpoints, and the checks that span fields."""

import dataclasses
import difflib
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

import jax

from jaxdiff import sampling
from jaxdiff.data.source import DataConfig
from jaxdiff.data.source import check as check_data
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.tasks.picture import SCHEDULES, Model, ProcessConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig, make_ema, make_optimizer


@dataclasses.dataclass(frozen=True)
class PreviewConfig:
    """The sample grids that a run writes.

    Attributes:
      prompts: one picture each; class names where the model knows classes.
      sampler: a name in `sampling.SAMPLERS`.
      steps: of the sampler.
      guidance: 1 is off.
      seed: the same for every grid of a run.
    """

    prompts: tuple[str, ...] = ()
    sampler: str = "ddim"
    steps: int = 20
    guidance: float = 3.0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A whole training run.

    Attributes:
      name: of the run; its default workdir is runs/NAME.
      seed: the root of all randomness, weights, data order and noise.
      strategy: how devices share the work: a mesh, or pmap (one whole copy of the model on each device).
      ema: decay of the average of the weights that samples are drawn from.
      held_out: split of the data whose loss under the averaged weights, `ema_loss`, is measured before each checkpoint
        and can rank them (--checkpoint.best ema_loss); empty measures nothing.
      held_out_batches: batches of it that are measured, the same with the same noise every time.
      vocabulary: most ids the byte-pair vocabulary may have; it is learned from the captions.
    """

    name: str
    seed: int = 0
    strategy: Literal["mesh", "pmap"] = "mesh"
    ema: float = 0.9999
    held_out: str = ""
    held_out_batches: int = 4
    vocabulary: int = 1024
    mesh: MeshSpec = MeshSpec()
    data: DataConfig = DataConfig()
    process: ProcessConfig = ProcessConfig()
    unet: UNetConfig = UNetConfig()
    text: TextConfig = TextConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    preview: PreviewConfig = PreviewConfig()

    @property
    def model(self) -> Model:
        """The numbers that a checkpoint's parameters belong to."""
        return Model(self.process, self.unet, self.text, self.data.size)

    @property
    def spec(self) -> MeshSpec | Literal["pmap"]:
        """How devices share the work, as `parallel.compile` takes it."""
        return "pmap" if self.strategy == "pmap" else self.mesh


def check(config: Experiment) -> None:
    """Every check that needs no data and no compiling.

    Raises:
      ValueError: the message names the fields, what they are, and what to do.
    """
    check_data(config.data)
    make_optimizer(config.optimizer, config.train.steps)
    make_ema(config.ema)
    sampling.make_table(config.preview.sampler, SCHEDULES[config.process.schedule](), config.preview.steps)
    for field, least in (("steps", 1), ("batch_size", 1), ("accumulate", 1), ("log_every", 1), ("preview_every", 0)):
        if getattr(config.train, field) < least:
            raise ValueError(f"train.{field} is {getattr(config.train, field)}: expected {least} or more")
    if config.checkpoint.best == "ema_loss" and not config.held_out:
        raise ValueError("checkpoint.best is 'ema_loss', which is measured on held_out, and that is empty: try 'test'")
    devices = jax.device_count()
    if config.strategy == "mesh":
        copies, split, _ = config.mesh.sizes(devices)
        devices = copies * split
    if config.train.batch_size % (devices * config.train.accumulate):
        raise ValueError(
            f"train.batch_size is {config.train.batch_size}, which does not divide by {devices} devices x "
            f"train.accumulate {config.train.accumulate}: choose a multiple of {devices * config.train.accumulate}"
        )
    unet, condition = config.unet, config.process.condition
    levels = len(unet.channels)
    for field in ("attention", "heads", "depth"):
        if len(getattr(unet, field)) != levels:
            raise ValueError(
                f"unet.{field} is {getattr(unet, field)}: expected one entry for each of the {levels} levels of "
                f"unet.channels {unet.channels}"
            )
    for width, heads in zip(unet.channels, unet.heads, strict=True):
        if width % unet.groups or width % heads:
            raise ValueError(
                f"unet.channels has {width}, which does not divide by unet.groups {unet.groups} or by {heads} heads"
            )
    if config.data.size % unet.unit:
        raise ValueError(
            f"data.size is {config.data.size}: expected a multiple of {unet.unit}, since the network cuts patches of "
            f"{unet.patch}" + (f" and halves {levels - 1} times" if unet.unit > unet.patch else "")
        )
    if (condition == "class") != (unet.labels > 0):
        raise ValueError(
            f"process.condition is {condition!r} and unet.labels is {unet.labels}: a class condition needs the number "
            "of classes in unet.labels, any other needs 0"
        )
    if (condition == "text") != unet.pooled:
        raise ValueError(
            f"process.condition is {condition!r} and unet.pooled is {unet.pooled}: text, and only text, needs it"
        )
    if condition == "text" and config.text.vocabulary < config.vocabulary:
        raise ValueError(f"text.vocabulary is {config.text.vocabulary}, below vocabulary {config.vocabulary}: raise it")


def to_json(config: Experiment) -> str:
    """The config as JSON; `from_json` reads it back."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> Experiment:
    """Reads what `to_json` wrote.

    Raises:
      ValueError: if a field is unknown, or its value none of those that it may have; the nearest name is shown.
    """
    return _build(Experiment, json.loads(text), "")


def _build(kind: Any, value: Any, path: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for name in value:
            if name not in hints:
                near = difflib.get_close_matches(name, hints, 1)
                raise ValueError(f"unknown config field {path}{name}" + (f": did you mean {near[0]}?" if near else ""))
        return kind(**{name: _build(hints[name], item, f"{path}{name}.") for name, item in value.items()})
    if typing.get_origin(kind) is tuple:
        return tuple(_build(typing.get_args(kind)[0], item, path) for item in value)
    if isinstance(kind, types.UnionType) and value is not None:
        return _build(next(a for a in typing.get_args(kind) if a is not type(None)), value, path)
    if typing.get_origin(kind) is typing.Literal and value not in (known := typing.get_args(kind)):
        raise ValueError(f"{path[:-1]} is {value!r}: expected one of {', '.join(map(str, known))}")
    return value


def read(workdir: Path) -> Experiment:
    """The config of a run.

    Raises:
      FileNotFoundError: if `workdir` is no run's.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} is no run of `jaxdiff train`: it has no config.json")
    return from_json(path.read_text())
