"""The training loop: it resumes by itself, keeps the device busy, and saves no state that it has not checked."""

import contextlib
import dataclasses
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxdiff.parallel import Program
from jaxdiff.training import processes
from jaxdiff.training.checkpoint import CheckpointConfig, Checkpoints
from jaxdiff.training.log import MetricsLog
from jaxdiff.training.state import TrainState
from jaxdiff.training.step import WATCHED
from jaxdiff.typing import Batch, Key


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The length and rhythm of a run.

    Attributes:
      steps: updates of the weights in all, over every restart.
      batch_size: examples of a step, over all devices and processes.
      accumulate: parts that a batch is worked through in, one after another, to save memory.
      log_every: steps between lines of metrics.jsonl; a line holds means over these steps.
      preview_every: steps between sample grids; 0 makes none.
    """

    steps: int = 10_000
    batch_size: int = 64
    accumulate: int = 1
    log_every: int = 50
    preview_every: int = 0


@runtime_checkable
class Data(Protocol):
    """An endless iterator of host batches (of this process) that can be put back where it stood."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> Any:
        """Returns the place in the stream, as JSON values."""

    def set_state(self, state: Any) -> None:
        """Goes back to where `get_state` was called."""


class NonFiniteLoss(FloatingPointError):  # noqa: N818
    """The loss, the gradient or the weights are no longer finite; the message says when, and where to go on from."""


def fit(
    program: Program,
    data: Data,
    key: Key,
    workdir: Path | str,
    train: TrainConfig,
    checkpoint: CheckpointConfig = CheckpointConfig(),
    *,
    ready: Callable[[], None] = lambda: None,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
    preview: Callable[[int, TrainState], Mapping[str, np.ndarray] | None] | None = None,
    evaluate: Callable[[TrainState], tuple[TrainState, Mapping[str, float]]] | None = None,
) -> TrainState:
    """Trains until `train.steps`, from the last checkpoint in `workdir` if there is one.

    A run that was killed and started again ends with the bits of an uninterrupted one. On SIGTERM or SIGINT it saves
    and returns early, with `state.step` below `train.steps`; a second SIGINT interrupts as usual.

    Args:
      program: from `parallel.compile` of `make_train_step`.
      data: host batches; `train.batch_size` examples over all processes.
      key: a typed threefry key, the root of the run's randomness; a resumed run goes on with the one it began with.
      workdir: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
      train: length and rhythm.
      checkpoint: when to save, what to keep.
      ready: called once the first state is there, before the first step: a checkpoint that does not match was refused.
      report: called after each step with its number (from 1) and metrics, one step late.
      preview: called with the step and the state every `train.preview_every` steps and at the end, in
        every process, since it may enter programs over all devices; pictures that it returns by name, uint8 [h, w, 3],
        go to TensorBoard.
      evaluate: called before each save with the state, which it consumes and returns; its metrics join the log, and may
        rank checkpoints. See `training.evaluate`.

    Raises:
      NonFiniteLoss: at the first step whose loss, gradient or weights are not finite; nothing after it is saved.
      SaveError: if a checkpoint cannot be written.
      MismatchError: if the checkpoint in `workdir` is of another architecture.
    """
    workdir = Path(workdir)
    init_key, root = jax.random.split(key)
    program.keys(root, 0, train.batch_size)  # refuses other keys than threefry and a batch that does not split
    with processes.watch(), stop_signals() as stopped, Checkpoints(workdir, checkpoint) as checkpoints:
        if checkpoints.latest:
            state, run = checkpoints.restore(program.like)
            state = dataclasses.replace(state, frozen=program.frozen(init_key))
            data.set_state(_own(run["data"]))
            root = jax.random.wrap_key_data(jnp.array(run["root"], jnp.uint32), impl="threefry2x32")
        else:
            state = program.init(init_key)
        step = saved = int(state.step)
        log = MetricsLog(workdir, step, train.batch_size, write=jax.process_index() == 0)
        ready()
        pending: tuple[int, Any] | None = None

        def due(at: int, every: int) -> bool:
            return every > 0 and (at % every == 0 or at == train.steps)

        def settle() -> None:
            """Waits for the pending step, and takes its metrics."""
            nonlocal pending
            if pending is None:
                return
            (at, device_metrics), pending = pending, None
            metrics = {name: float(value) for name, value in jax.device_get(device_metrics).items()}
            if not all(math.isfinite(metrics[name]) for name in WATCHED):
                checkpoints.wait()
                values = ", ".join(f"{name} = {metrics[name]}" for name in WATCHED)
                raise NonFiniteLoss(
                    f"step {at}: {values}. The last good checkpoint is {checkpoints.latest or '(none yet)'}. Try a "
                    "lower optimizer.lr or optimizer.clip, or a longer optimizer.warmup."
                )
            log.add(metrics)
            if report:
                report(at, metrics)
            if at % train.log_every == 0 and not due(at, checkpoint.every):
                log.flush(at)
                checkpoints.check()

        def save(metrics: Mapping[str, float] | None) -> None:
            nonlocal saved
            root_data = np.asarray(jax.random.key_data(root)).tolist()
            checkpoints.save(state, {"data": processes.gather(data.get_state()), "root": root_data}, metrics)
            saved = step

        with contextlib.closing(log):
            while step < train.steps and not stopped(step):
                batch = program.put(_next(data, step))
                state, metrics = program.step(state, batch, program.keys(root, step, train.batch_size))
                step += 1
                settle()
                pending = step, metrics
                if preview and due(step, train.preview_every):
                    settle()
                    log.pause()
                    log.images(step, preview(step, state) or {})
                if due(step, checkpoint.every):
                    settle()
                    log.pause()
                    held_out: Mapping[str, float] = {}
                    if evaluate:
                        state, held_out = evaluate(state)
                    save(log.flush(step, held_out))
            settle()
            log.flush(step)
            if saved < step:  # stopped by a signal: no time for an evaluation
                save(None)
    return state


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[int], bool]]:
    """Makes SIGTERM and SIGINT, within, only let the given function of the step about to run return True.

    A second SIGINT interrupts as usual. Of several processes all must stop before the same step, which JAX's preemption
    service settles; it knows SIGTERM only.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, receive)
    try:
        yield lambda step: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _next(data: Data, step: int) -> Batch:
    try:
        return next(data)
    except StopIteration:
        raise ValueError(f"the data ended after {step} steps: give `fit` an iterator that repeats.") from None


def _own(states: list[Any]) -> Any:
    """Returns this process' iterator state, where as many processes saved theirs or all stood alike."""
    if len(states) != jax.process_count() and any(state != states[0] for state in states):
        raise ValueError(
            f"the checkpoint was saved by {len(states)} processes whose data stood differently, and there are now "
            f"{jax.process_count()}: resume with {len(states)}."
        )
    return states[jax.process_index() if len(states) == jax.process_count() else 0]
