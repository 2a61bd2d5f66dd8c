"""The training loop: it resumes by itself, keeps the device busy, and saves no state that it has not checked."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxdiff.parallel import Program
from jaxdiff.training import processes
from jaxdiff.training.checkpoint import CheckpointConfig, Checkpoints
from jaxdiff.training.faults import IN_A_ROW, NonFiniteLoss, Watch
from jaxdiff.training.log import MetricsLog
from jaxdiff.training.state import TrainState
from jaxdiff.typing import Batch, Key


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The length and rhythm of a run.

    Attributes:
      steps: updates of the weights, counted over all restarts.
      batch_size: examples per step, over all devices and processes.
      accumulate: number of parts that a batch is processed in, one after another, to save memory.
      log_every: steps between lines of metrics.jsonl, whose values are means over these steps.
      preview_every: steps between sample grids; 0 writes none.
      faults: reaction to a step whose loss, gradient or weights are not finite, or whose gradient spikes: `stop` the
        run, `skip` the update, or `rewind` to the last checkpoint and resume there with the batches that follow.
      spike: multiple of its usual norm from which a gradient counts as a spike; 0: no gradient does.
    """

    steps: int = 10_000
    batch_size: int = 64
    accumulate: int = 1
    log_every: int = 50
    preview_every: int = 0
    faults: Literal["stop", "skip", "rewind"] = "stop"
    spike: float = 0.0


@runtime_checkable
class Data(Protocol):
    """An endless iterator of host batches (of this process) that can be put back where it stood."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> Any:
        """Returns the place in the stream, as JSON values."""

    def set_state(self, state: Any) -> None:
        """Goes back to where `get_state` was called."""


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
    profile: tuple[int, int] | None = None,
    at_peak: Callable[[], float | None] = lambda: None,
) -> TrainState:
    """Trains until `train.steps`, from the last checkpoint in `workdir` if there is one.

    A run that was killed and started again ends with the bits of an uninterrupted one. On SIGTERM or SIGINT it saves
    and returns early, with `state.step` below `train.steps`; a second SIGINT interrupts as usual.

    Args:
      program: from `parallel.compile` of `make_train_step`.
      data: host batches; `train.batch_size` examples over all processes.
      key: a typed threefry key, the root of the run's randomness; a resumed run keeps the one it began with.
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
      profile: the first and last step of this start that are traced, into `profile/`.
      at_peak: called once, before the first step: seconds that a step would take at the peak of the devices; None where
        that is not known.

    Raises:
      NonFiniteLoss: at the first step that `train.faults` does not let pass; nothing after it is saved.
      SaveError: if a checkpoint cannot be written.
      MismatchError: if the checkpoint in `workdir` is of another architecture.
    """
    workdir = Path(workdir)
    init_key, root = jax.random.split(key)
    program.keys(root, 0, train.batch_size)  # refuses other keys than threefry and a batch that does not split
    with processes.watch(), stop_signals() as stopped, Checkpoints(workdir, checkpoint) as checkpoints:
        clock = Clock()
        if checkpoints.latest:
            state, run = checkpoints.restore(program.like)
            state = dataclasses.replace(state, frozen=program.frozen(init_key))
            data.set_state(_own(run["data"]))
            root = jax.random.wrap_key_data(jnp.array(run["root"], jnp.uint32), impl="threefry2x32")
            clock = Clock(**run.get("clock", {}))
        else:
            state = program.init(init_key)
        step = saved = started = int(state.step)
        watch, rewinds = Watch(train.spike if train.faults != "skip" else 0.0), 0
        log = MetricsLog(workdir, step, train.batch_size, jax.process_index() == 0, program.mesh.size, at_peak())
        ready()
        pending: tuple[int, Any] | None = None
        fault: tuple[int, str] | None = None

        def due(at: int, every: int) -> bool:
            return every > 0 and (at % every == 0 or at == train.steps)

        def settle() -> None:
            """Waits for the pending step, and takes its metrics."""
            nonlocal pending, fault
            if pending is None or fault:
                return
            (at, device_metrics), pending = pending, None
            metrics = {name: float(value) for name, value in jax.device_get(device_metrics).items()}
            if what := watch.fault(metrics):
                checkpoints.wait()
                last = checkpoints.latest
                if train.faults == "rewind" and last and rewinds < IN_A_ROW:
                    fault = at, what
                    return
                again = f" after {rewinds} rewinds" if rewinds else ""
                raise NonFiniteLoss(
                    f"step {at}: {what}{again}. The last good checkpoint is {last or '(none yet)'}. Try a "
                    "lower optimizer.lr or optimizer.clip, a longer optimizer.warmup, or --train.faults skip or rewind."
                )
            if metrics.pop("skipped", 0.0):
                log.event(at, "skip", {name: str(metrics[name]) for name in ("loss", "grad_norm")})
            else:
                log.add(metrics)
                if report:
                    report(at, metrics)
            if at % train.log_every == 0 and not due(at, checkpoint.every):
                flush(at)
                checkpoints.check()

        def flush(at: int, extra: Mapping[str, float] = MappingProxyType({})) -> dict[str, float]:
            if not log.steps and not extra:
                return {}
            clock.useful += log.seconds
            return log.flush(at, {**extra, **log.stall(processes.gather), "goodput": clock.goodput()})

        def save(metrics: Mapping[str, float] | None) -> None:
            nonlocal saved
            root_data = np.asarray(jax.random.key_data(root)).tolist()
            run = {"data": processes.gather(data.get_state()), "root": root_data, "clock": dataclasses.asdict(clock)}
            checkpoints.save(state, run, metrics)
            saved = step

        def rewind() -> None:
            """Goes back to the last checkpoint; the data stay where they are, so that other batches follow."""
            nonlocal state, step, saved, pending, fault, rewinds
            assert fault
            (at, what), fault, pending = fault, None, None
            frozen = state.frozen  # what it was loaded from was consumed
            state, run = checkpoints.restore(program.like)
            state = dataclasses.replace(state, frozen=frozen)
            clock.useful = run["clock"]["useful"]
            step = saved = int(state.step)
            rewinds += 1
            log.rewind(step)
            log.event(step, "rewind", {"from": at, "because": what})

        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(log))
            traced = stack.enter_context(_profiler(workdir / "profile", profile))
            while (step < train.steps and not stopped(step)) or fault:
                if fault:
                    rewind()
                traced(step - started + 1)
                began = time.perf_counter()
                batch = program.put(_next(data, step))
                log.waited(time.perf_counter() - began)
                state, metrics = program.step(state, batch, program.keys(root, step, train.batch_size))
                step += 1
                settle()
                if fault:
                    continue
                pending = step, metrics
                if preview and due(step, train.preview_every):
                    settle()
                    if fault:
                        continue
                    log.pause()
                    log.images(step, preview(step, state) or {})
                if due(step, checkpoint.every) or step == train.steps:
                    settle()
                    if fault or not due(step, checkpoint.every):
                        continue
                    log.pause()
                    held_out: Mapping[str, float] = {}
                    if evaluate:
                        state, held_out = evaluate(state)
                    save(flush(step, held_out))
                    rewinds = 0
            settle()
            flush(step)
            if saved < step and not fault:  # stopped by a signal: no time for an evaluation
                save(None)
    return state


@dataclasses.dataclass
class Clock:
    """Tells how much of a run's time was of use, over all its starts.

    Attributes:
      began: seconds since 1970 at the first start.
      useful: seconds of the steps that are in the weights: not of those that were lost, of compiling, or of waiting.
    """

    began: float = dataclasses.field(default_factory=time.time)
    useful: float = 0.0

    def goodput(self) -> float:
        """Returns the share of useful time since the first start."""
        return self.useful / max(time.time() - self.began, 1e-9)


@contextlib.contextmanager
def _profiler(folder: Path, steps: tuple[int, int] | None) -> Iterator[Callable[[int], None]]:
    """Gives a function of the step about to run, which traces from the first to the last."""
    on = False

    def tell(step: int) -> None:
        nonlocal on
        if steps and not on and step == steps[0]:
            jax.profiler.start_trace(str(folder))
            on = True
        elif steps and on and step > steps[1]:
            jax.profiler.stop_trace()
            on = False

    try:
        yield tell
    finally:
        if on:
            jax.profiler.stop_trace()


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
