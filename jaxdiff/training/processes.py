"""Messages on the host between the processes of one run, started by `jax.distributed`."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the only way to its key-value store
from jax.experimental import multihost_utils

EVERY = 3.0
"""Seconds between the signs of life that each process gives."""
PATIENCE = 10
"""Signs of life in a row that a process may miss before it counts as lost."""
LINGERS = 3
"""Signs of life that process 0 waits before it ends: the store lies there in which the others read who is lost."""
FOLDER = "jaxdiff/alive/"
LOST = f"{FOLDER}lost"
DONE = "done"


def gather(value: Any) -> list[Any]:
    """Returns every process' JSON value, in the order of the processes; each waits for all."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(text)))
    texts = multihost_utils.process_allgather(np.pad(text, (0, int(lengths.max()) - len(text))))
    return [json.loads(bytes(row[:length])) for row, length in zip(texts, lengths, strict=True)]


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """Ends this process with a sentence and status 1, within, when another is lost that it would wait for.

    Each process writes signs of life to the key-value store of `jax.distributed` and reads those of the others; one
    whose signs stop for EVERY x PATIENCE seconds is lost. Who finds it so notes it there, so that all name the same one
    and not each other. That store lives in process 0. Where this is lost, JAX's own
    thread aborts the others at once; its words on standard error cannot be kept back, but ours follow them.
    """
    if jax.process_count() == 1:
        yield
        return
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(stop,), daemon=True)
    watcher.start()
    with _explained_abort():  # also while an error of this process waits for the watcher
        try:
            yield
        except Exception as error:
            if _from_jax(error):  # perhaps since another process is lost: then the watcher ends this one
                watcher.join(EVERY * (PATIENCE + LINGERS + 2))
            raise
        else:
            _state().client.key_value_set(_key(jax.process_index()), DONE, allow_overwrite=True)
        finally:
            stop.set()


def _watch(stop: threading.Event) -> None:
    client, me = _state().client, jax.process_index()
    heard: dict[str, str] = {}
    silent: dict[str, int] = {}
    number = 0
    while not stop.wait(EVERY):
        number += 1
        try:
            client.key_value_set(_key(me), str(number), allow_overwrite=True)
            signs = dict(client.key_value_dir_get(FOLDER))
            lost = signs.pop(LOST, None)
            for key, sign in signs.items():
                # counted in readings, not seconds: a process that slept itself must not take the others for lost
                silent[key] = silent.get(key, 0) + 1 if heard.get(key) == sign != DONE else 0
                heard[key] = sign
                if lost is None and silent[key] >= PATIENCE and key != _key(me):
                    lost = key.removeprefix(FOLDER)
                    client.key_value_set(LOST, lost, allow_overwrite=True)
        except jax.errors.JaxRuntimeError:
            if not stop.is_set():
                _end(0)
            return
        if lost is not None:
            if me == 0:
                time.sleep(EVERY * LINGERS)
            _end(int(lost))


def _state() -> Any:
    return distributed.global_state


def _key(process: int) -> str:
    return f"{FOLDER}{process}"


def _end(lost: int) -> None:
    """Ends the process at once: a collective operation that waits for the lost one cannot be stopped."""
    sentence = (
        f"jaxdiff: process {lost} of {jax.process_count()} is lost, so process {jax.process_index()} ends. Its own "
        "output says why it ended (or its machine is gone). Start all processes again, as many or others: training "
        "resumes from the last checkpoint.\n"
    )
    os.write(2, sentence.encode())
    os._exit(1)


@contextlib.contextmanager
def _explained_abort() -> Iterator[None]:
    """Explains, within, an abort that comes of another lost process.

    JAX aborts where process 0 is gone, and Gloo where it loses the other end in the middle of something. JAX takes a
    callback, which it cannot call (its argument has no Python type), and a handler of Python's `signal` would not run,
    for the thread that aborts never returns to Python. So C calls this one; where it returns, the abort continues.
    """

    def handle(_: int) -> None:
        host, port = _state().coordinator_address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            _end(0)
        time.sleep(EVERY * (PATIENCE + LINGERS + 2))  # the watcher ends this process meanwhile if another is lost

    with on_abort(handle):
        yield


@contextlib.contextmanager
def on_abort(handle: Callable[[int], None]) -> Iterator[None]:
    """Lets C call `handle` where the process aborts, in whichever thread; where it returns, the abort continues."""
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
    install = ctypes.CDLL(None).signal
    install.restype, install.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before = install(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        install(signal.SIGABRT, before)


def _from_jax(error: BaseException | None) -> bool:
    """Tells whether an error is of the devices or their network; Gloo's come as ValueErrors too."""
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
