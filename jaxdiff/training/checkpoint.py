"""Checkpoints: WORKDIR/checkpoints/STEP, written beside the training, whole or not at all, and checked when read.

A checkpoint has these items: `ema_params`, all that sampling needs; `state`, the other fields of the train state;
`run`, JSON with the root key and where the data iterator stood; and `metrics`, if it was measured. Orbax writes to a
temporary directory; the manifest (`training.manifest`) is added there; then it is renamed, so that a directory named by
a number is a whole checkpoint. One that is damaged later is passed over for the one before.
"""

import contextlib
import dataclasses
import errno
import itertools
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import SingleDeviceSharding

from jaxdiff.training import manifest, processes
from jaxdiff.training.manifest import DamagedError, first_line, listed
from jaxdiff.training.state import NOT_SAVED, TrainState
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Params

UNFINISHED = ".orbax-checkpoint-tmp"
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are made and which are kept.

    Attributes:
      every: steps between checkpoints; the end of a run and SIGTERM write one too; 0 writes no others.
      keep: number of the latest checkpoints that are kept.
      best: metric whose lowest value marks one more checkpoint to keep; empty marks none.
    """

    every: int = 1000
    keep: int = 3
    best: str = ""


class SaveError(OSError):
    """A checkpoint could not be written; the message says which is the last complete one."""


class MismatchError(ValueError):
    """A checkpoint does not hold what the model needs; the message lists the leaves that differ."""


class Checkpoints:
    """The checkpoints of one run, as a context manager that leaves no write unfinished."""

    def __init__(self, workdir: Path, config: CheckpointConfig = CheckpointConfig()) -> None:
        """Opens WORKDIR/checkpoints, removing what a killed run left half written."""
        if config.keep < 1 or config.every < 0:
            raise ValueError(
                f"checkpoint.keep = {config.keep} must be at least 1, for a run resumes from the last, and "
                f"checkpoint.every = {config.every} at least 0, which saves at the end alone."
            )
        self.directory = workdir.absolute() / "checkpoints"
        self._config = config
        self._writing = ""
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            _remove_unfinished(self.directory, patience=0.0)
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.wait()
        finally:
            self._writer.close()

    @property
    def latest(self) -> Path | None:
        """Returns the last complete checkpoint."""
        found = steps(self.directory)
        return self.directory / str(found[-1]) if found else None

    def save(self, state: TrainState, run: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Starts writing a checkpoint; waits for the one before.

        Args:
          state: read before this returns, so that it may be donated to the next step.
          run: JSON, returned by `restore`.
          metrics: the one named by `CheckpointConfig.best` ranks the checkpoint; None leaves it unranked.

        Raises:
          SaveError: if this or the one before could not be written.
        """
        best = self._config.best
        if best and metrics is not None and best not in metrics:
            raise ValueError(
                f"checkpoint.best = {best!r} is not a metric of this run; it has: {', '.join(sorted(metrics))}."
            )
        self.wait()
        items: dict[str, Any] = {name: ocp.args.StandardSave(_once(tree)) for name, tree in _items(state).items()}
        items["run"] = ocp.args.JsonSave(dict(run))
        if metrics:
            items["metrics"] = ocp.args.JsonSave(dict(metrics))
        self._writing = str(int(state.step))
        with self._explained():
            self._writer.save(self.directory / self._writing, args=ocp.args.Composite(**items))

    def wait(self) -> None:
        """Waits for the write in progress, and removes the checkpoints that need not be kept.

        Raises:
          SaveError: if it failed.
        """
        with self._explained():
            self._writer.wait_until_finished()
        if jax.process_index() == 0:
            self._remove_old()

    def check(self) -> None:
        """Raises SaveError if a write has failed, without waiting."""
        with self._explained():
            self._writer.check_for_errors()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads the state and `run` of the last checkpoint that is whole.

        Damaged ones after it are renamed to STEP.damaged, and a warning names their damaged files.

        Args:
          like: the state's shapes, with the shardings to restore to; the mesh need not be the one it was saved from.
            Fields that are not saved are returned as they are here.

        Raises:
          MismatchError: if the checkpoint is of another architecture or optimizer.
          DamagedError: if none is whole.
        """
        restored, damaged = _read_last(self.directory, lambda path: _restore(path, like))
        if damaged:
            by_first(lambda: _set_aside(damaged))
        return restored

    def _write_manifest(self) -> None:
        """Completes a checkpoint; Orbax calls this in its thread, in process 0, before it renames the directory."""
        (folder,) = self.directory.glob(f"{self._writing}{UNFINISHED}*")
        manifest.write(folder)

    def _remove_old(self) -> None:
        found = steps(self.directory)
        keep = found[-self._config.keep :]
        if best := self._config.best:
            rank = {step: _metrics(self.directory / str(step)).get(best, math.inf) for step in found}
            keep += sorted(found, key=lambda step: (rank[step], -step))[:1]
        for step in set(found) - set(keep):
            shutil.rmtree(self.directory / str(step), ignore_errors=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SaveError:
            raise
        except Exception as error:
            if jax.process_index() == 0:
                _remove_unfinished(self.directory)
            cause = "the disk is full" if _disk_full(error) else first_line(error)
            last = (
                f"the last complete checkpoint is {self.latest}" if self.latest else "there is no complete checkpoint"
            )
            raise SaveError(
                f"could not write a checkpoint to {self.directory}: {cause}; {last}. Mend it (free space, or set "
                "checkpoint.keep lower) and give the same command again: training resumes from there."
            ) from error


def _remove_unfinished(directory: Path, patience: float = 5.0) -> None:
    """Removes what a failed save left, which would fill a full disk until the next start.

    Orbax tells of the first item that failed while others are still being written, and these put files back; so this
    looks again until nothing has come back for a while, or its patience, in seconds, has ended.
    """
    end, clear = time.monotonic() + patience, 0
    while True:
        parts = list(directory.glob(f"*{UNFINISHED}*"))
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
        clear = 0 if parts else clear + 1
        if clear == 5 or time.monotonic() >= end:
            return
        time.sleep(0.05)


def load_params(path: Path | str, like: Params | None = None) -> Params:
    """Reads the averaged parameters of a run, to sample with.

    Args:
      path: a run's WORKDIR, whose last whole checkpoint is taken (a warning names the damaged files of later ones), or
        one checkpoint, WORKDIR/checkpoints/STEP.
      like: a tree of arrays or shapes that the checkpoint must match; their shardings say where the parameters go.
        Without it, they come as they are, to one device.

    Raises:
      FileNotFoundError: if there is no checkpoint at `path`.
      MismatchError: if the checkpoint is not like `like`.
      DamagedError: if the checkpoint, or each of the run's, is damaged or has weights that are not finite.
    """
    return _of_run(path, lambda path: _load_params(path, like))


def load_weights(path: Path | str, params: Params, extra: Any) -> tuple[Params, Any]:
    """Reads the averaged parameters and `TrainState.extra` of one checkpoint, as `load_params` reads the parameters.

    Raises:
      FileNotFoundError, MismatchError, DamagedError: see `load_params`.
    """
    if not jax.tree.leaves(extra):
        return load_params(path, params), extra
    return _of_run(path, lambda path: (_load_params(path, params), _load_extra(path, extra)))


def _of_run(path: Path | str, read: Callable[[Path], T]) -> T:
    path = Path(path).absolute()
    if path.name.isdigit() and path.is_dir():
        return read(path)
    if not steps(path / "checkpoints"):
        raise FileNotFoundError(
            f"{path} is not a checkpoint (WORKDIR/checkpoints/STEP) and has none: give a run's --workdir."
        )
    return _read_last(path / "checkpoints", read)[0]


def _load_extra(path: Path, like: Any) -> Any:
    one = SingleDeviceSharding(jax.local_devices()[0])
    with _whole(path, "state/"):
        place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(x) or one)
        item = {"extra": jax.tree.map(place, like)}
        args = ocp.checkpoint_utils.construct_restore_args(item)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            wanted = ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True)
            return reader.restore(path / "state", args=wanted)["extra"]


def _load_params(path: Path, like: Params | None) -> Params:
    with _whole(path, "ema_params/"):
        saved = _saved(path / "ema_params")
        if like is not None:
            check_match(path, saved, like)
        one = SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(x) or one), like or saved
        )
        params = _read(path / "ema_params", shapes)
    _refuse_infinite(path, params)
    return params


def _restore(path: Path, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    wanted = _items(like)
    with _whole(path):
        saved = {item: _saved(path / item) for item in wanted}
        for field, tree in wanted["state"].items():  # one by one: where parameters differ, moments only repeat it
            check_match(path, {field: saved["state"].get(field, {})}, {field: tree})
        for item, tree in wanted.items():
            check_match(path, saved[item], tree)
        # a field that came later is not in older checkpoints; here it is empty, or it would not match
        wanted["state"] = {field: tree for field, tree in wanted["state"].items() if field in saved["state"]}
        read = {item: _read(path / item, tree) for item, tree in wanted.items()}
        run = json.loads((path / "run" / "metadata").read_text())
    fields = read.pop("state") | read
    _refuse_infinite(path, {name: tree for name, tree in fields.items() if name.endswith("params")})
    return dataclasses.replace(like, **fields), run


def _items(state: TrainState) -> dict[str, Any]:
    """Returns the trees that a checkpoint holds: `ema_params`, unless it is empty, and the other fields together."""
    fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in NOT_SAVED}
    ema = fields.pop("ema_params")
    return {"state": fields, **({"ema_params": ema} if jax.tree.leaves(ema) else {})}


def _once(tree: Any) -> Any:
    """Takes one copy of what all devices of this one process hold whole: Orbax would cut it for all of them to write.

    Cutting the thousands of small arrays of a network takes several times as long as to write them.
    """
    if jax.process_count() > 1:
        return tree
    is_whole = lambda x: isinstance(x, jax.Array) and x.is_fully_replicated
    return jax.tree.map(lambda x: x.addressable_data(0) if is_whole(x) else x, tree)


def _read_last(directory: Path, read: Callable[[Path], T]) -> tuple[T, list[Path]]:
    """Calls `read` with the last checkpoint, or with the one before while it is damaged; returns these, too."""
    damaged: dict[Path, DamagedError] = {}
    for step in reversed(steps(directory)):
        path = directory / str(step)
        try:
            found = read(path)
        except DamagedError as error:
            damaged[path] = error
            continue
        if jax.process_index() == 0:
            for error in damaged.values():
                warnings.warn(f"{error}: {path} is taken instead", stacklevel=3)
        return found, list(damaged)
    raise DamagedError(f"{directory} has no whole checkpoint: {'; '.join(map(str, damaged.values()))}")


@contextlib.contextmanager
def _whole(path: Path, under: str = "") -> Iterator[None]:
    """Checks the files of a checkpoint; within, whatever goes wrong in reading one without a manifest is damage too."""
    fault, has_manifest = "", False
    if jax.process_index() == 0:
        try:
            has_manifest = manifest.check(path, under)
        except DamagedError as error:
            fault = str(error)
    fault, has_manifest = processes.gather([fault, has_manifest])[0]
    if fault:
        raise DamagedError(fault)
    try:
        yield
    except MismatchError:
        raise
    except Exception as error:
        if has_manifest:
            raise
        raise DamagedError(f"the checkpoint {path} cannot be read ({first_line(error)})") from error


def _refuse_infinite(path: Path, weights: Any) -> None:
    """Raises DamagedError if a weight is NaN or infinite; each process looks at its own shards."""
    wrong = [
        name
        for name, leaf in _named(weights).items()
        if not all(np.isfinite(shard.data).all() for shard in leaf.addressable_shards if shard.replica_id == 0)
    ]
    if everyones := set(itertools.chain(*processes.gather(wrong))):
        raise DamagedError(f"the checkpoint {path} has weights that are not finite: {listed(everyones)}")


def _set_aside(damaged: Iterable[Path]) -> None:
    for path in damaged:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)


def _metrics(path: Path) -> Mapping[str, float]:
    """Returns the metrics saved with a checkpoint; none if they were not measured or cannot be read."""
    for name in ("metadata", "metrics"):  # the second in older checkpoints
        with contextlib.suppress(OSError, ValueError):
            return json.loads((path / "metrics" / name).read_text())
    return {}


def _sharding(leaf: Any) -> Any:
    sharding = getattr(leaf, "sharding", None)
    return sharding if isinstance(sharding, jax.sharding.Sharding) else None


def steps(directory: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in WORKDIR/checkpoints, rising."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit()) if directory.is_dir() else []


def check_match(path: Path, saved: Any, wanted: Any) -> None:
    """Compares the leaves that a checkpoint holds with those that the run needs.

    Raises:
      MismatchError: naming the leaves that are missing, unexpected or of another shape.
    """
    there = {name: tuple(leaf.shape) for name, leaf in _named(saved).items()}
    here = {name: tuple(leaf.shape) for name, leaf in _named(wanted).items()}
    differ = {
        "missing from it": [f"{name} {here[name]}" for name in here.keys() - there.keys()],
        "in it, but unknown here": [f"{name} {there[name]}" for name in there.keys() - here.keys()],
        "of another shape": [
            f"{name} {there[name]} there, {here[name]} here"
            for name in here.keys() & there.keys()
            if here[name] != there[name]
        ],
    }
    if any(differ.values()):
        lists = "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in differ.items() if names)
        raise MismatchError(
            f"the checkpoint {path} is of another architecture or optimizer than this run ({lists}): use the config it "
            "was made with, or another workdir"
        )


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _saved(path: Path) -> Any:
    """Returns the tree of what an item holds, with shapes and dtypes."""
    return ocp.StandardCheckpointHandler().metadata(epath.Path(path)).tree


def _read(path: Path, like: Any) -> Any:
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        return reader.restore(path, args=ocp.args.StandardRestore(like))


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
