"""From a command line to an experiment: files that are no configs, and what is said of a run that is resumed."""

import dataclasses
import pathlib
import re

import pytest

from jaxdiff import experiment
from jaxdiff.cli.config import differences, parse, read_config

GOOD = """
from jaxdiff.experiment import Experiment
from jaxdiff.tasks import picture
from jaxdiff.training import OptimizerConfig, TrainConfig

def config():
    return Experiment("mine", picture.Config(), optimizer=OptimizerConfig(warmup=30), train=TrainConfig(steps=100))
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nx.y\n", "mine.py, line 2: AttributeError: 'int' object has no attribute 'y'"),
        (
            "import nothing_of_that_name\n",
            "mine.py, line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
        ("def config(:\n", "mine.py, line 1: SyntaxError"),
        ("\n\ndef config():\n    return 1 / 0\n", "mine.py, line 4: ZeroDivisionError: division by zero"),
        ("def f():\n  raise KeyError('a\\nb')\ndef config():\n  f()\n", "mine.py, line 2: KeyError: 'a"),
        ("def config():\n  return 3\n", "mine.py: config() gives int: expected an Experiment"),
        ("config = 3\n", "mine.py is no config: it must define `def config() -> Experiment`"),
        ("", "mine.py is no config"),
        ("raise SystemError\n", "mine.py, line 1: SystemError: "),
    ],
)
def test_a_file_that_is_no_config_is_told_with_its_own_line(write, text, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        read_config(write(text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mine.yaml", "mine.yml", "mine.json", "mine.toml", "mine"])
def test_other_files_than_python_are_refused(write, name):
    with pytest.raises(ValueError, match=r"is no Python file, which configs are: write `def config"):
        read_config(write("name: x\n", name))


def test_a_config_without_a_small_form(write):
    with pytest.raises(ValueError, match=r"has no small form: it must define `def small"):
        read_config(write(GOOD), small=True)
    text = GOOD + "\ndef small():\n    return None\n"
    with pytest.raises(ValueError, match=r"small\(\) gives NoneType: expected an Experiment"):
        read_config(write(text), small=True)


def test_fields_of_the_task_are_options(write):
    path = str(write(GOOD))
    options = [
        "--task.net.dropout",
        "0.5",
        "--task.process.schedule",
        "linear",
        "--task.text.width",
        "8",
        "--seed",
        "3",
    ]
    config, _ = parse([path, *options, "--mesh.fsdp", "2", "--checkpoint.every", "7"], print)
    task = config.task
    assert (task.net.dropout, task.process.schedule, task.text.width) == (0.5, "linear", 8)
    assert (config.seed, config.mesh.fsdp, config.checkpoint.every) == (3, 2, 7)


def test_the_workdir_goes_with_the_name(write):
    path = str(write(GOOD))
    assert str(parse([path], print)[1]) == "runs/mine"
    assert str(parse([path, "--name", "other"], print)[1]) == "runs/other"
    assert str(parse([path, "--name", "other", "--workdir", "w"], print)[1]) == "w"


@pytest.mark.parametrize(
    ("options", "warmup"),
    [
        ([], 30),
        (["--train.steps", "31"], 30),
        (["--train.steps", "20"], 2),
        (["--train.steps=30"], 3),
        (["--train.steps", "1"], 0),
        (["--train.steps", "20", "--optimizer.warmup", "25"], 25),  # which the checks refuse by name
    ],
)
def test_a_run_too_short_for_its_warmup_shortens_it_and_says_so(write, options, warmup):
    said = []
    config, _ = parse([str(write(GOOD)), *options], said.append)
    assert config.optimizer.warmup == warmup
    assert len(said) == (warmup < 30 and warmup != 25)
    assert all("shortened from 30 to" in line for line in said)


def test_a_run_that_is_resumed_says_what_is_changed(write, tmp_path):
    path, workdir = write(GOOD), tmp_path / "run"
    (workdir / "checkpoints" / "5").mkdir(parents=True)
    saved = dataclasses.replace(read_config(path), seed=4)
    (workdir / "config.json").write_text(experiment.to_json(saved))
    said = []
    config, _ = parse([str(path), "--workdir", str(workdir), "--train.steps", "200"], said.append)
    assert (config.seed, config.train.steps) == (4, 200)
    assert said == [
        f"{workdir} is resumed, and this command changes train.steps 100 -> 200",
        f"{workdir} is resumed with its own config.json, of which {path} would change seed 4 -> 0",
    ]


def test_differences_are_listed_by_their_paths(write):
    one = read_config(write(GOOD))
    net = dataclasses.replace(one.task.net, channels=(8, 8))
    two = dataclasses.replace(one, task=dataclasses.replace(one.task, net=net), held_out="test")
    assert differences(one, two) == [
        "task.net.channels [128, 256, 256, 256] -> [8, 8]",
        'held_out "" -> "test"',
    ]
    assert differences(one, one) == []


@pytest.mark.parametrize("name", ["quickstart", "quickstart.py", "configs/quickstart.py"])
def test_configs_of_the_package_are_found_from_anywhere(write, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    assert read_config(pathlib.Path(name)).name == "quickstart"
    write(GOOD, "quickstart.py")
    assert read_config(pathlib.Path("quickstart.py")).name == "mine"
    with pytest.raises(FileNotFoundError, match=r"file elsewhere/quickstart\.py; there are cifar10, .* and \d+ more"):
        read_config(pathlib.Path("elsewhere/quickstart.py"))
