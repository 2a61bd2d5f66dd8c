"""A run's directory: one run at a time writes there, by process 0, and each file is there whole or not at all."""

import contextlib
import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import jax

from jaxdiff.training import processes

LOCK = ".lock"
"""Holds the name of the process that locked it last; it stays, since the lock is on the open file."""


class InUseError(OSError):
    """Another run is at work in this directory; the message names its process and host."""


@contextlib.contextmanager
def lock(workdir: Path | str) -> Iterator[None]:
    """Keeps every other run out of `workdir`, which is made if it is missing, until the context ends.

    Process 0 holds the lock for all processes of a run. The system drops it when that process ends, however it ends, so
    that a killed run leaves nothing to clean up. A file system without locks (some of clusters) only warns.

    Raises:
      InUseError: if another run holds it, also one of this process; processes but the first get it as an OSError.
    """
    with contextlib.ExitStack() as held:
        by_first(lambda: held.enter_context(_locked(Path(workdir))))
        yield


def write_text(path: Path | str, text: str) -> None:
    """Writes a file of a run, by process 0; every process must call, and returns when it is there.

    Raises:
      OSError: (in every process) if it cannot be written; what was there before is then untouched.
    """
    by_first(lambda: replace(Path(path), text))


def replace(path: Path, text: str) -> None:
    """Writes a file by way of another beside it, so that a reader, a kill or a full disk meets the old or the new."""
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def by_first(act: Callable[[], object]) -> None:
    """Calls `act` in process 0 while the others wait; what it raises, all raise, so that none waits for ever."""
    failure: Exception | None = None
    if jax.process_index() == 0:
        try:
            act()
        except Exception as error:
            failure = error
    failed = processes.gather(failure and [isinstance(failure, ValueError), str(failure)])[0]
    if failure:
        raise failure
    if failed:
        raise (ValueError if failed[0] else OSError)(failed[1])


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOCK).open("a+") as file:
        _lock(file, workdir)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _lock(file: TextIO, workdir: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise InUseError(
            f"{workdir} is in use by another run, {file.read() or 'which has just started'}: stop that one, or give "
            "another --workdir"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        warnings.warn(f"{workdir} cannot be locked ({error.strerror}): run only one at a time there", stacklevel=2)
