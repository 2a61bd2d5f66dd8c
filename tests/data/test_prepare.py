import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
PREPARE = """
from jaxdiff.data import DataConfig, batches, open_source
import sys
config = DataConfig(subset="quickstart")
source = open_source(config)
batch = next(batches(source, config, batch_size=4, seed=0))
assert "tensorflow" not in sys.modules
print(len(source), "READY")
"""


def start(folder, stub):
    """A process in which importing TensorFlow, installed or not, is an error."""
    env = os.environ | {"PYTHONPATH": f"{stub}{os.pathsep}{ROOT}", "TFDS_DATA_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_after_a_killed_one(tmp_path):
    stub = tmp_path / "stub"
    (stub / "tensorflow").mkdir(parents=True)
    (stub / "tensorflow" / "__init__.py").write_text("raise RuntimeError('TensorFlow was imported')")
    folder = tmp_path / "tfds"

    killed = start(folder, stub)
    deadline = time.time() + 60
    while not list(folder.glob("openmoji/32/incomplete.*/*")):
        assert killed.poll() is None, killed.communicate()
        assert time.time() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (folder / "openmoji" / "32" / "17.0.0").exists()
    (left,) = folder.glob("openmoji/32/incomplete.*")
    os.utime(left, (0, 0))  # as if it were old

    both = [start(folder, stub) for _ in range(2)]
    outputs = [process.communicate(timeout=100) for process in both]
    for process, (out, err) in zip(both, outputs, strict=True):
        assert process.returncode == 0, err
        assert "161 READY" in out
    assert sum("downloaded and prepared" in out + err for out, err in outputs) == 1
    assert not list(folder.glob("openmoji/32/incomplete.*"))


def test_importing_the_package_loads_nothing_heavy():
    code = """
import sys, jaxdiff.data.source, jaxdiff.data
print(*{"tensorflow", "tensorflow_datasets", "grain", "jax", "PIL", "flax"} & set(sys.modules))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
