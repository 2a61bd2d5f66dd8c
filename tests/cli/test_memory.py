"""What a program on a CPU frees, it uses again at its next call, without asking the system."""

import subprocess
import sys

FAULTS = """
import resource
import jax, jax.numpy as jnp
from jaxdiff.cli.memory import keep_freed
keep_freed()
program = jax.jit(lambda x: jax.lax.cumsum(jnp.sin(jnp.outer(x, x)) @ jnp.outer(x, x), axis=1).sum())
x = jnp.arange(3000.0)
taken = []
for call in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(program(x))
    taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(program.lower(x).compile().memory_analysis().temp_size_in_bytes // resource.getpagesize())
print(sorted(taken)[4])  # the median: the heap may still grow once or twice
"""


def test_a_later_call_takes_no_new_pages():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    pages, taken = (float(line) for line in done.stdout.split())
    assert pages > 10_000
    assert taken < pages / 100, "without it each call takes them all, where pages are small"
