"""The time of a second process to its first step, with compiled programs from a file or with the compilation cache.

Two cores that nothing else uses: programs are loaded while Python imports and opens the data."""

import os
import subprocess
import sys
import time

import pytest

RUN = ["openmoji32", "--small", "--train.accumulate", "2", "--task.net.remat", "blocks", "--train.steps", "1"]
RUN += ["--train.preview-every", "0", "--checkpoint.every", "0", "--checkpoint.best", "none", "--held-out="]


def train(*options, cache=""):
    """Returns the seconds from the start of a process to its first step, whose loss is printed then, and that line."""
    command = [sys.executable, "-m", "jaxdiff", "train", *RUN, *options]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": cache}
    began, took, first = time.monotonic(), 0.0, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("step 1/1 "):
                took, first = time.monotonic() - began, line
    assert process.returncode == 0
    return took, first


@pytest.mark.heavy
def test_a_saved_executable_is_three_times_as_fast_to_the_first_step_as_the_cache(tmp_path):
    cache, saved = str(tmp_path / "cache"), str(tmp_path / "step.executable")
    train("--dry-run", "--save-executable", saved)
    train("--workdir", str(tmp_path / "fill"), cache=cache)
    both = [
        (
            train("--workdir", str(tmp_path / f"cached{turn}"), cache=cache),
            train("--workdir", str(tmp_path / f"saved{turn}"), "--executable", saved, cache=cache),
        )
        for turn in range(3)
    ]
    print([(round(cached, 2), round(loaded, 2)) for (cached, _), (loaded, _) in both])
    assert len({line for pair in both for _, line in pair}) == 1, "the same loss"
    cached, loaded = (min(took for took, _ in way) for way in zip(*both, strict=True))
    assert cached / loaded > 3
