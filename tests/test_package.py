import pathlib
import subprocess
import sys
import time

import jax
import pytest

from jaxdiff import experiment
from jaxdiff.cli.train import read_config

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def test_importing_is_quick_and_light():
    began = time.perf_counter()
    code = "import jaxdiff, sys; sys.exit(any(name in sys.modules for name in ('tensorflow', 'flax', 'jax')))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_passes_its_checks_and_survives_json(path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    config = read_config(path)
    experiment.check(config)
    assert experiment.from_json(experiment.to_json(config)) == config
    assert path.stem == config.name
