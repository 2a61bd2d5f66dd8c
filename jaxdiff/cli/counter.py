"""How far a long count is: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


@contextlib.contextmanager
def counting(what: str, total: int, every: float = 10.0) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told how many are done; the first time, how many were before.

    Args:
      what: is counted, "pictures".
      total: of them.
      every: seconds between the lines where standard output is no terminal.
    """
    console = Console()
    began: tuple[float, int] | None = None
    shown = 0.0

    def text(done: int) -> str:
        nonlocal began
        now = time.perf_counter()
        began = began or (now, done)
        rate = (done - began[1]) / max(now - began[0], 1e-9)
        if not rate:
            return ""
        return f"{rate:.1f}/s  {datetime.timedelta(seconds=round((total - done) / rate))} left"

    if not console.is_terminal:

        def line(done: int) -> None:
            nonlocal shown
            message = text(done)
            if time.perf_counter() - shown >= every or done == total:
                shown = time.perf_counter()
                print(f"{what} {done}/{total}  {message}".rstrip(), flush=True)

        yield line
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done, description=text(done))
