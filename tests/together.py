"""Runs of several processes on this machine, which `jax.distributed` makes one: for tests that start them."""

import contextlib
import os
import socket
import subprocess
import sys
import threading

import jax


def join(port, index, count):
    """Makes this process the one of that index, before anything of JAX is used."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=int(count), process_id=int(index))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(commands, devices=2):
    """Starts a process for each command, a list of words, with so many virtual devices each."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return [subprocess.Popen([*map(str, words)], **pipes, text=True, env=environment) for words in commands]


def start(script, *args, count=2, devices=2):
    """Starts `script PORT INDEX COUNT ARGS` once for each index."""
    port = free_port()
    return launch([[sys.executable, script, port, index, count, *args] for index in range(count)], devices)


def finish(processes, seconds=600):
    """Returns what each printed, read from all at once, since a full pipe stops one and so all; each has to succeed."""
    outputs = [("", "")] * len(processes)

    def read(index):
        with contextlib.suppress(subprocess.TimeoutExpired):
            outputs[index] = processes[index].communicate(timeout=seconds)

    readers = [threading.Thread(target=read, args=(index,)) for index in range(len(processes))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    late = [index for index, process in enumerate(processes) if process.poll() is None]
    for process in processes:
        process.kill()
    assert not late, f"processes {late} are not done after {seconds} seconds"
    assert not any(process.returncode for process in processes), [err[-3000:] for _, err in outputs]
    return [out for out, _ in outputs]
