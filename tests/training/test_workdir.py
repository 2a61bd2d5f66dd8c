"""One run at a time in a directory, and files that are whole or absent."""

import errno
import fcntl
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from jaxdiff.training import workdir
from jaxdiff.training.workdir import InUseError, lock, write_text

HOLD = """
import sys
from jaxdiff.training.workdir import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_by_name_until_it_is_killed(tmp_path):
    """A kill leaves no lock behind, though the file stays."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(workdir.__file__).parents[2])},
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InUseError) as error, lock(tmp_path / "run"):
            pass
        assert f"{tmp_path / 'run'} is in use by another run, process {holder.pid} on {socket.gethostname()}" in str(
            error.value
        )
        assert "\n" not in str(error.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with lock(tmp_path / "run"):
        pass


def test_a_run_of_the_same_process_is_refused_too_and_the_end_frees(tmp_path):
    with lock(tmp_path):
        for _ in range(2):
            with pytest.raises(InUseError, match=f"process {os.getpid()} on"), lock(tmp_path):
                pass
        with lock(tmp_path / "other"):
            pass
    with lock(str(tmp_path)):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"


def test_an_error_within_frees_and_is_not_changed(tmp_path):
    with pytest.raises(OSError, match="mine"), lock(tmp_path):
        raise OSError("mine")
    with lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_warns(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked"), lock(tmp_path):
        pass


def test_text_is_written_as_it_is_and_replaces(tmp_path):
    path = tmp_path / "deep" / "config.json"
    for text in ("one\r\ntwo\n", "ä", ""):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert [path.name for path in path.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, at):
    path = tmp_path / "config.json"
    write_text(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, at, full)
        with pytest.raises(OSError, match="No space left"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("index", [0, 1])
def test_process_0_alone_writes_and_its_failure_is_raised_in_all(tmp_path, monkeypatch, index):
    monkeypatch.setattr("jax.process_index", lambda: index)
    said = []
    monkeypatch.setattr(workdir.processes, "gather", lambda value: said.append(value) or [[False, "disk full"], None])
    if index:
        with pytest.raises(OSError, match="disk full"):
            write_text(tmp_path / "a", "text")
        assert not list(tmp_path.iterdir())
        with pytest.raises(OSError, match="disk full"), lock(tmp_path / "run"):
            pass
        assert not list(tmp_path.iterdir())
    else:
        (tmp_path / "a").mkdir()
        with pytest.raises(IsADirectoryError):
            write_text(tmp_path / "a", "text")
    assert ("directory" in said[0][1]) if index == 0 else (said == [None, None])


@pytest.mark.parametrize(("kind", "raised"), [(OSError, OSError), (ValueError, ValueError), (RuntimeError, OSError)])
def test_what_stops_the_first_process_stops_all(monkeypatch, kind, raised):
    told = []

    def act():
        raise kind("no room")

    monkeypatch.setattr(workdir.processes, "gather", lambda value: told.append(value) or [value])
    with pytest.raises(kind, match="no room"):
        workdir.by_first(act)
    monkeypatch.setattr(workdir.processes, "gather", lambda value: told[:1])
    monkeypatch.setattr(workdir.jax, "process_index", lambda: 1)
    with pytest.raises(raised, match="no room"):
        workdir.by_first(act)
