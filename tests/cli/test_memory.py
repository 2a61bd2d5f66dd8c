"""What a program on a CPU frees, it uses again at its next call, without asking the system."""

import subprocess
import sys

FAULTS = """
import resource, sys
import jax, jax.numpy as jnp
from jaxdiff.cli.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
program = jax.jit(lambda x: jax.lax.cumsum(jnp.sin(jnp.outer(x, x)) @ jnp.outer(x, x), axis=1).sum())
x = jnp.arange(3000.0)
for call in range(6):
    if call == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(program(x))
print(program.lower(x).compile().memory_analysis().temp_size_in_bytes // resource.getpagesize())
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 3)
"""


def faults(how):
    """Returns the pages of a program's buffers, and how many of them a later call asks the system for."""
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def test_a_later_call_takes_no_new_pages():
    pages, taken = faults("kept")
    assert pages > 10_000
    assert taken < pages / 100
    assert faults("freed")[1] > pages / 2, "and without it each call takes them all, so that this test can fail"
