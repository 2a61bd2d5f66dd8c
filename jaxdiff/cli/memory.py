"""The host's memory, from which programs that run on its CPU take theirs."""

import ctypes
import sys

import jax

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # their numbers in malloc.h


def keep_freed() -> None:
    """Lets each call of a program on a CPU use the memory that the call before freed.

    The GNU C library gives large blocks back to the system, which clears every page again when the next call writes to
    it; a train step, whose activations are its largest blocks, then waits for the system a good part of its time. Here
    the library keeps them, so that the process holds the most that it ever needed. It keeps those of the main thread
    alone, in which programs are called therefore, without JAX's asynchronous dispatch.

    To be called before anything asks JAX for its devices. Programs of a GPU or TPU, and those that run with another C
    library, stay as they are.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu":
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, -1)
