"""Metrics on disk: WORKDIR/metrics.jsonl, one line an interval, and TensorBoard events beside it."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import numpy as np


class MetricsLog:
    """Averages the metrics of steps, and writes the averages at the end of each interval."""

    def __init__(self, workdir: Path, step: int, batch_size: int, write: bool = True) -> None:
        """Opens the files to go on after `step`, dropping later lines; writes nothing unless `write`."""
        self._batch_size = batch_size
        self._file: TextIO | None = None
        self._board: Any = None
        self._since: float | None = None
        self._clear()
        if write:
            # Here, for it takes seconds where torch is installed: tensorboardX imports what it finds.
            from tensorboardX import SummaryWriter

            workdir.mkdir(parents=True, exist_ok=True)
            truncate(workdir / "metrics.jsonl", step)
            self._file = (workdir / "metrics.jsonl").open("a")
            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def add(self, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of one step; its time is that since the step before, unless `pause` came between."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        now = time.perf_counter()
        if self._since is not None:
            self._seconds += now - self._since
            self._timed += 1
        self._since = now

    def pause(self) -> None:
        """Says that what follows is no training: it must not count as a step's time."""
        self._since = None

    def flush(self, step: int, extra: Mapping[str, float] = MappingProxyType({})) -> dict[str, float]:
        """Writes the means over the steps since the last flush, and `extra`, as a line of `step`, and returns them."""
        line = {name: value / self._steps for name, value in self._sums.items()} | dict(extra)
        if self._timed:
            line["images_per_second"] = self._timed * self._batch_size / self._seconds
        self._clear()
        if line and self._file is not None:
            self._file.write(json.dumps({"step": step, **line}) + "\n")
            self._file.flush()
            for name, value in line.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
        return line

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Shows pictures, uint8 [h, w, 3] by name, in TensorBoard."""
        if self._board is not None:
            for name, picture in pictures.items():
                self._board.add_image(name, picture, step, dataformats="HWC")
            self._board.flush()

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
            self._board.close()

    def _clear(self) -> None:
        self._sums: dict[str, float] = {}
        self._steps, self._timed, self._seconds = 0, 0, 0.0


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
