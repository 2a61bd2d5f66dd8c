"""Metrics on disk: WORKDIR/metrics.jsonl, one line an interval, and TensorBoard events beside it."""

import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import jax
import numpy as np

STALL = 10.0
"""A step that takes so many times the median is a stall."""


class MetricsLog:
    """Averages the metrics of steps, and writes the averages at the end of each interval."""

    def __init__(
        self,
        workdir: Path,
        step: int,
        batch_size: int,
        write: bool = True,
        devices: int = 1,
        share: float | None = None,
    ) -> None:
        """Opens the files to continue after `step`, dropping later lines.

        Args:
          workdir: workdir of the run.
          step: the last that counts.
          batch_size: images of a step.
          write: whether this process writes.
          devices: that share the step.
          share: seconds that a step would take at the peak of the devices; None where that is not known.
        """
        self._batch_size, self._devices, self._share = batch_size, devices, share
        self._path, self._waited = workdir / "metrics.jsonl", 0.0
        self._file: TextIO | None = None
        self._board: Any = None
        self._since: float | None = None
        self._clear()
        self._step = step
        if write:
            workdir.mkdir(parents=True, exist_ok=True)
            truncate(self._path, step)
            self._file = self._path.open("a")

    def add(self, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of one step; its time is that since the step before, unless `pause` came between."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self.steps += 1
        now = time.perf_counter()
        if self._since is not None:
            self._times.append((now - self._since, self._waited))
        self._since, self._waited = now, 0.0

    def waited(self, seconds: float) -> None:
        """Takes how long this process waited for the data of a step."""
        self._waited += seconds

    @property
    def seconds(self) -> float:
        """Returns the time of the steps since the last flush; of those that were not timed the median."""
        times = [time for time, _ in self._times]
        return sum(times) + (self.steps - len(times)) * statistics.median(times) if times else 0.0

    def stall(self, gather: Callable[[Any], list[Any]]) -> dict[str, float]:
        """Returns the longest step of this interval, if it took STALL times the median, and which process was late.

        Args:
          gather: returns the values of all processes; every process must call.
        """
        if not self._times:
            longest, usual = (0.0, 0.0), 0.0
        else:
            longest, usual = max(self._times), statistics.median(time for time, _ in self._times)
        times = gather([*longest, usual])
        seconds, _, usual = times[0]
        if len(self._times) < 3 or seconds < STALL * usual:
            return {}
        late = max(range(len(times)), key=lambda process: times[process][1])
        warnings.warn(
            f"a step took {seconds:.3g} s, {seconds / usual:.0f} times the median: process {late} waited longest "
            f"for its data, {times[late][1]:.3g} s",
            stacklevel=2,
        )
        return {"stall_seconds": seconds, "stall_process": float(late)}

    def event(self, step: int, event: str, values: Mapping[str, Any]) -> None:
        """Writes a line that says what happened."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step, "event": event, **values}) + "\n")
            self._file.flush()

    def rewind(self, step: int) -> None:
        """Drops the lines after `step`, and what was not written yet."""
        self._clear()
        self.pause()
        if self._file is not None:
            self._file.close()
            truncate(self._path, step)
            self._file = self._path.open("a")

    def pause(self) -> None:
        """Says that what follows is no training: it must not count as a step's time."""
        self._since, self._waited = None, 0.0

    def flush(self, step: int, extra: Mapping[str, float] = MappingProxyType({})) -> dict[str, float]:
        """Writes the means over the steps since the last flush, and `extra`, as a line of `step`, and returns them."""
        line = {name: value / self.steps for name, value in self._sums.items()} | dict(extra)
        if line and self._times:
            line |= self._speed()
        self._clear()
        if line and self._file is not None:
            self._file.write(json.dumps({"step": step, **line}) + "\n")
            self._file.flush()
            board = self._open_board()
            for name, value in line.items():
                board.add_scalar(name, value, step)
            board.flush()
        return line

    def _open_board(self) -> Any:
        """Returns TensorBoard's writer, imported after the first step: that takes seconds where torch is installed."""
        if self._board is None:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._path.with_name("tensorboard")), purge_step=self._step + 1)
        return self._board

    def _speed(self) -> dict[str, float]:
        times = sorted(time for time, _ in self._times)
        total = sum(times)
        rate = len(times) * self._batch_size / total
        values = {"images_per_second": rate, "images_per_second_device": rate / self._devices}
        values |= {f"step_seconds_p{p}": times[min(len(times) * p // 100, len(times) - 1)] for p in (50, 90, 99)}
        values["input_wait"] = min(sum(waited for _, waited in self._times) / total, 1.0)
        if self._share:
            values["mfu"] = self._share * len(times) / total
        if memory := (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"):
            values["memory_gib"] = memory / 2**30
        return values

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Shows pictures, uint8 [h, w, 3] by name, in TensorBoard."""
        if self._file is not None:
            board = self._open_board()
            for name, picture in pictures.items():
                board.add_image(name, picture, step, dataformats="HWC")
            board.flush()

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def _clear(self) -> None:
        self._sums: dict[str, float] = {}
        self.steps = 0
        self._times: list[tuple[float, float]] = []


def truncate(path: Path, step: int) -> None:
    """Removes the lines of a metrics file after `step`, and a last line that was cut off by a kill.

    Raises:
      ValueError: for a line that is damaged; names it.
    """
    if not path.exists():
        return
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line.decode())
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number} is damaged ({type(error).__name__}): remove that line, or the file"
            ) from None
    part = path.with_suffix(".part")
    part.write_text("".join(kept))
    os.replace(part, path)
