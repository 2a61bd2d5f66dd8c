"""Checkpoints: WORKDIR/checkpoints/STEP, written beside the training, whole or not at all.

A checkpoint has three items: `ema_params`, all that sampling needs; `state`, the rest of the train state; and `run`,
JSON with the root key and where the data iterator stood. Orbax writes to a temporary directory and renames it when all
is there, so that a directory named by a number is a whole checkpoint.
"""

import contextlib
import dataclasses
import errno
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import checkpoint_managers

from jaxdiff.training.state import TrainState
from jaxdiff.typing import Params


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are made and which are kept.

    Attributes:
      every: steps between them; one is made at the end and on SIGTERM too; 0 makes no other.
      keep: how many of the last are kept.
      best: the metric whose lowest value marks one more to keep; empty keeps none.
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
                f"checkpoint.keep = {config.keep} must be at least 1, for the last is what a run goes on from, and "
                f"checkpoint.every = {config.every} at least 0, which saves at the end alone."
            )
        self.directory = workdir.absolute() / "checkpoints"
        self._best = config.best
        policies: list[Any] = [checkpoint_managers.LatestN(config.keep)]
        if config.best:
            best = checkpoint_managers.BestN(
                get_metric_fn=self._rank, reverse=True, n=1, keep_checkpoints_without_metrics=False
            )
            policies.append(best)
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                best_fn=self._rank if config.best else None,
                best_mode="min",
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
                save_root_metadata=False,
            ),
        )

    def _rank(self, metrics: Mapping[str, float]) -> float:
        return metrics[self._best]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        with self._explained():
            self._manager.close()

    @property
    def latest(self) -> Path | None:
        """The last complete checkpoint."""
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
        if self._best and metrics is not None and self._best not in metrics:
            raise ValueError(
                f"checkpoint.best = {self._best!r} is no metric of this run; it has: {', '.join(sorted(metrics))}."
            )
        step = int(state.step)
        rest = {"step": state.step, "params": state.params, "opt_state": state.opt_state}
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    ema_params=ocp.args.StandardSave(state.ema_params),
                    state=ocp.args.StandardSave(rest),
                    run=ocp.args.JsonSave(dict(run)),
                ),
                metrics=metrics and dict(metrics),
            )

    def wait(self) -> None:
        """Waits for the write in progress.

        Raises:
          SaveError: if it failed.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def check(self) -> None:
        """Raises SaveError if a write has failed, without waiting."""
        with self._explained():
            self._manager.check_for_errors()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The last checkpoint's state and `run`.

        Args:
          like: the state's shapes, with the shardings to restore to; the mesh need not be the one it was saved from.

        Raises:
          MismatchError: if the checkpoint is of another architecture or optimizer.
        """
        path = self.latest
        assert path is not None, "restore follows a check of `latest`"
        rest = {"step": like.step, "params": like.params, "opt_state": like.opt_state}
        check_match(path, "state", {"params": rest["params"]}, partial=True)
        check_match(path, "state", rest)
        state, ema = _read(path / "state", rest), _read(path / "ema_params", like.ema_params)
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            run = reader.restore(path / "run")
        return TrainState(state["step"], state["params"], state["opt_state"], ema), run

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SaveError:
            raise
        except Exception as error:
            if jax.process_index() == 0:
                _remove_unfinished(self.directory)
            cause = "the disk is full" if _disk_full(error) else str(error)
            last = (
                f"the last complete checkpoint is {self.latest}" if self.latest else "there is no complete checkpoint"
            )
            raise SaveError(
                f"could not write a checkpoint to {self.directory}: {cause}; {last}. Mend it (free space, or set "
                "checkpoint.keep lower) and give the same command again: training goes on from there."
            ) from error


def _remove_unfinished(directory: Path, patience: float = 5.0) -> None:
    """Removes what a failed save left, which would fill a full disk until the next start.

    Orbax tells of the first item that failed while others are still being written, and these put files back; so this
    looks again until nothing has come back for a while.
    """
    end, clear = time.monotonic() + patience, 0
    while clear < 5 and time.monotonic() < end:
        parts = list(directory.glob("*.orbax-checkpoint-tmp*"))
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
        clear = 0 if parts else clear + 1
        time.sleep(0.05)


def load_params(path: Path | str, like: Params | None = None) -> Params:
    """The averaged parameters of a run, to sample with.

    Args:
      path: a run's WORKDIR (its last checkpoint is taken) or one checkpoint, WORKDIR/checkpoints/STEP.
      like: a tree of arrays or shapes that the checkpoint must match; their shardings say where the parameters go.
        Without it, they come as they are, to one device.

    Raises:
      FileNotFoundError: if there is no checkpoint at `path`.
      MismatchError: if the checkpoint is not like `like`.
    """
    path = Path(path).absolute()
    if not (path / "ema_params").is_dir():
        found = steps(path / "checkpoints")
        if not found:
            raise FileNotFoundError(
                f"{path} is no checkpoint (WORKDIR/checkpoints/STEP) and has none: give a run's --workdir."
            )
        path = path / "checkpoints" / str(found[-1])
    if like is None:
        like = _saved(path / "ema_params")
    else:
        check_match(path, "ema_params", like)
    one = SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(x) or one), like)
    return _read(path / "ema_params", shapes)


def _sharding(leaf: Any) -> Any:
    sharding = getattr(leaf, "sharding", None)
    return sharding if isinstance(sharding, jax.sharding.Sharding) else None


def steps(directory: Path) -> list[int]:
    """The steps of the complete checkpoints in WORKDIR/checkpoints, rising."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit()) if directory.is_dir() else []


def check_match(path: Path, item: str, like: Any, partial: bool = False) -> None:
    """Compares the leaves of a checkpoint's item with those of `like`.

    Raises:
      MismatchError: listing the leaves that are missing, unexpected or of another shape.
    """
    saved = _shapes(_saved(path / item))
    wanted = _shapes(like)
    if partial:
        saved = {name: shape for name, shape in saved.items() if name.split("/")[0] in like}
    differ = {
        "missing from the checkpoint": [f"{name} {wanted[name]}" for name in wanted.keys() - saved.keys()],
        "in the checkpoint, but unknown to this model": [
            f"{name} {saved[name]}" for name in saved.keys() - wanted.keys()
        ],
        "of another shape": [
            f"{name} {saved[name]} there, {wanted[name]} here"
            for name in wanted.keys() & saved.keys()
            if wanted[name] != saved[name]
        ],
    }
    if any(differ.values()):
        lists = [
            f"{len(names)} {what}:" + "".join(f"\n    {name}" for name in sorted(names))
            for what, names in differ.items()
            if names
        ]
        raise MismatchError(
            f"the checkpoint {path} is of another architecture or optimizer than this run. Leaves that differ:\n  "
            + "\n  ".join(lists)
            + "\nUse the config it was made with, or another workdir."
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def _saved(path: Path) -> Any:
    """The tree of what an item holds, with shapes and dtypes."""
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
