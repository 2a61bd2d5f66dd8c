"""Progress of long work: a bar with rate and time left on a terminal, an occasional line elsewhere."""

import contextlib
import datetime
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

WINDOW = 50
"""Steps over which loss and speed are averaged."""


@contextlib.contextmanager
def _shown(what: str, total: int, every: float, waiting: str = "") -> Iterator[Callable[[int, str], None]]:
    """Gives a function that shows how many of `total` are done, and a text."""
    console = Console()
    if not console.is_terminal:
        last = float("-inf")
        if waiting:
            print(f"{what} 0/{total}  {waiting}", flush=True)

        def line(done: int, text: str) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= every or done == total:
                last = now
                print(f"{what} {done}/{total}  {text}".rstrip(), flush=True)

        yield line
        return
    columns = TextColumn(what), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(waiting, total=total)
        yield lambda done, text: bar.update(task, completed=done, description=text)


@contextlib.contextmanager
def stages(what: str, every: float = 10.0) -> Iterator[Callable[..., None]]:
    """Gives a function (stage, detail) that shows what is being done now.

    Nothing runs between its calls, as the bars do, which would disturb a measurement.

    Args:
      what: is being worked at; shown in front.
      every: seconds between the lines of one stage where standard output is not a terminal.
    """
    terminal, last, shown = Console().is_terminal, 0.0, ""

    def tell(stage: str, detail: str = "") -> None:
        nonlocal last, shown
        now = time.perf_counter()
        if terminal:
            print(f"\r\033[K{what}: {stage}{detail}", end="", flush=True)
        elif stage != shown or now - last >= every:
            print(f"{what}: {stage}{detail}", flush=True)
            last, shown = now, stage

    try:
        yield tell
    finally:
        if terminal:
            print(f"\r\033[K{what}", flush=True)


def _left(count: int, rate: float) -> str:
    return f"{datetime.timedelta(seconds=round(count / rate))} left"


@contextlib.contextmanager
def progress(steps: int, batch_size: int, every: float = 10.0) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Gives the function that `training.fit` takes as `report`: it shows step, loss, images/s and the time left.

    Args:
      steps: steps of the whole run.
      batch_size: images of a step.
      every: seconds between the lines where standard output is not a terminal.
    """
    recent: deque[tuple[float, int, float]] = deque(maxlen=WINDOW)
    with _shown("step", steps, every, "compiling") as show:

        def tell(step: int, metrics: Mapping[str, float]) -> None:
            recent.append((time.perf_counter(), step, metrics["loss"]))
            (began, first, _), (now, _, _) = recent[0], recent[-1]
            text = f"loss {sum(entry[2] for entry in recent) / len(recent):.4f}"
            if step > first:
                rate = (step - first) / (now - began)
                text += f"  {rate * batch_size:.1f} images/s  {_left(steps - step, rate)}"
            show(step, text)

        yield tell


@contextlib.contextmanager
def counting(what: str, total: int, every: float = 10.0, waiting: str = "") -> Iterator[Callable[[int], None]]:
    """Gives a function to be called with how many are done; the first time, how many were before.

    Args:
      what: is counted, "pictures".
      total: how many there are.
      every: seconds between the lines where standard output is not a terminal.
      waiting: what is done before the first call, "compiling".
    """
    began: tuple[float, int] | None = None
    with _shown(what, total, every, waiting) as show:

        def tell(done: int) -> None:
            nonlocal began
            now = time.perf_counter()
            began = began or (now, done)
            rate = (done - began[1]) / max(now - began[0], 1e-9)
            show(done, f"{rate:.1f}/s  {_left(total - done, rate)}" if rate else "")

        yield tell
