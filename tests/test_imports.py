"""Importing jaxdiff starts no backend: a caller may still choose platform, processes and compilation cache."""

import subprocess
import sys

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
