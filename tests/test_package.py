import pathlib
import resource
import subprocess
import sys

import jax
import pytest

from jaxdiff import experiment
from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import PROGRAMS
from jaxdiff.tasks import teacher

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def used():
    """Seconds of processor time that child processes took: the clock on the wall depends on what else runs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_importing_is_quick_and_light():
    began = used()
    code = "import jaxdiff, sys; sys.exit(any(name in sys.modules for name in ('tensorflow', 'flax', 'jax')))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert used() - began < 2


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_there_at_once_on_standard_output(name):
    """It needs none of the modules that are slow to import."""
    began = used()
    code = """if True:
        import sys
        from jaxdiff.cli.main import main
        try:
            main([sys.argv[1], "--help"])
        except SystemExit as error:
            assert error.code == 0
        slow = {"jax", "flax", "optax", "orbax", "tensorflow", "scipy", "rich"} & {*sys.modules}
        assert not slow, slow
    """
    done = subprocess.run([sys.executable, "-c", code, name], check=True, capture_output=True, text=True)
    assert used() - began < 1
    assert "usage: jaxdiff" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_passes_its_checks_and_survives_json(path, monkeypatch):
    def read(run):  # of a teacher's run, its config stands for it
        name = run.name.removesuffix("-small")
        taught = read_config(path.parent / f"{name}.py", small=name != run.name)
        return teacher.Teacher(run, taught.task, taught.data.size)

    monkeypatch.setattr(teacher, "read", read)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    check = experiment.check
    if path.stem.startswith("sd_"):  # they start from a model that the user names

        def check(config):
            with pytest.raises(ValueError, match=r"task\.model is not given: name a directory"):
                experiment.check(config)

    config = read_config(path)
    check(config)
    assert experiment.from_json(experiment.to_json(config)) == config
    assert path.stem == config.name
    header = " ".join(path.read_text().partition('"""')[2].partition('"""')[0].split())
    words = ("Paper", "Hardware: ", "ime", "esult", "Command: jaxdiff ", f"jaxdiff train configs/{path.name}")
    assert all(word in header for word in words)
    small = read_config(path, small=True)
    check(small)
    assert small.name == f"{path.stem}-small"
