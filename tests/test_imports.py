"""Importing jaxdiff, and asking for help, starts no backend: platform, processes and cache may still be chosen."""

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, pkgutil, jaxdiff
from jax._src import xla_bridge

for module in pkgutil.walk_packages(jaxdiff.__path__, "jaxdiff."):
    if module.name.endswith("__main__"):  # runs when it is imported
        continue
    importlib.import_module(module.name)
    assert not xla_bridge.backends_are_initialized(), f"{module.name} started a backend when it was imported"
print("imported")
"""


def test_no_module_starts_a_backend_when_it_is_imported():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout.strip() == "imported", done.stderr


HELP = """
import contextlib, sys
from jax._src import xla_bridge
from jaxdiff.cli.main import main

with contextlib.suppress(SystemExit):
    main(sys.argv[1:])
assert not xla_bridge.backends_are_initialized()
"""


@pytest.mark.parametrize(
    "words", ["train quickstart --help", "train quickstart --train.stepps 3", "compare --help", "benchmark --help"]
)
def test_help_and_a_mistake_start_no_backend(words):
    done = subprocess.run([sys.executable, "-c", HELP, *words.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
