"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import datetime
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

WINDOW = 50
"""Steps over which loss and speed are averaged."""


@contextlib.contextmanager
def progress(steps: int, batch_size: int, every: float = 10.0) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Gives the function that `training.fit` takes as `report`: it shows step, loss, images/s and the time left.

    Args:
      steps: of the whole run.
      batch_size: images of a step.
      every: seconds between the lines where standard output is no terminal.
    """
    console = Console()
    recent: deque[tuple[float, int, float]] = deque(maxlen=WINDOW)

    def text() -> str:
        (began, first, _), (now, step, _) = recent[0], recent[-1]
        loss = sum(entry[2] for entry in recent) / len(recent)
        if step == first:
            return f"loss {loss:.4f}"
        rate = (step - first) / (now - began)
        left = datetime.timedelta(seconds=round((steps - step) / rate))
        return f"loss {loss:.4f}  {rate * batch_size:.1f} images/s  {left} left"

    if not console.is_terminal:
        shown = 0.0

        def line(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal shown
            recent.append((time.perf_counter(), step, metrics["loss"]))
            if recent[-1][0] - shown >= every or step == steps:
                shown = recent[-1][0]
                print(f"step {step}/{steps}  {text()}", flush=True)

        yield line
        return
    columns = TextColumn("step {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling", total=steps)

        def update(step: int, metrics: Mapping[str, float]) -> None:
            recent.append((time.perf_counter(), step, metrics["loss"]))
            bar.update(task, completed=step, description=text())

        yield update
