"""Starting the processes of one run: `--distributed auto` on TPU pods, SLURM and MPI, or 'host:port,count,index'."""

import os
import re

import jax
from jax._src import distributed

from jaxdiff.training import processes

_EXPLICIT = re.compile(r"([\w.\-\[\]:]+:\d+),(\d+),(\d+)")


def start(how: str, timeout: int = 300) -> None:
    """Joins the processes of a run; must come before anything asks JAX for its devices.

    Where the others do not come in time this process ends with a sentence and status 1.

    Args:
      how: 'auto', where the cluster tells each process its place (Cloud TPU, GKE, SLURM, Open MPI); or the address of
        process 0, the count of processes and the index of this one, 'host:port,count,index'.
      timeout: seconds to wait for the others.

    Raises:
      ValueError: if `how` is neither, or no cluster is found.
    """
    address = count = index = None
    if how != "auto":
        if not (found := _EXPLICIT.fullmatch(how)) or not int(found[3]) < int(found[2]):
            raise ValueError(
                f"--distributed is {how!r}: expected auto, or host:port,count,index with index from 0 to count - 1, as "
                "10.0.0.2:8476,4,0"
            )
        address, count, index = found[1], int(found[2]), int(found[3])
    who = f"process {'(auto)' if index is None else index}"
    sentence = (
        f"jaxdiff: {who} waited {timeout} s for the others at {address or 'the address that the cluster gives'}: start "
        "all at once, and let them reach that port\n"
    )

    def give_up(_: int) -> None:  # JAX aborts where the others do not come
        os.write(2, sentence.encode())
        os._exit(1)

    try:
        with processes.on_abort(give_up):
            jax.distributed.initialize(address, count, index, initialization_timeout=timeout)
    except ValueError as error:
        if how != "auto":
            raise
        raise ValueError(
            "--distributed auto found no cluster (it knows Cloud TPU, GKE, SLURM and Open MPI): give "
            f"--distributed host:port,count,index ({str(error).splitlines()[0]})"
        ) from error


def name() -> str:
    """Returns 'process 3 of 8: ' of a run of several, for what each of them says; '' of one alone."""
    state = distributed.global_state
    several = state.client is not None and (state.num_processes or 1) > 1
    return f"process {state.process_id} of {state.num_processes}: " if several else ""


def index() -> int:
    """Returns the number of this process, without asking for devices."""
    return distributed.global_state.process_id or 0
