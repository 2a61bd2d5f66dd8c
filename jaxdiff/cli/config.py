"""From a command line to an experiment: a config file, the fields given, and the run that is resumed."""

import dataclasses
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxdiff import experiment
from jaxdiff.experiment import Experiment
from jaxdiff.training import checkpoint

SMALL = "--small"


@dataclasses.dataclass(frozen=True)
class Args:
    """A training run.

    Attributes:
      workdir: gets config.json, checkpoints/, samples/, metrics.jsonl and tensorboard/; by default runs/NAME.
      experiment: what to train.
    """

    workdir: Path | None
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]


def parse(argv: list[str], say: Callable[[str], None]) -> tuple[Experiment, Path]:
    """Returns the experiment that a command line asks for, and its workdir.

    A workdir with a checkpoint is resumed: its own config counts, and of the command line the fields that are given.

    Args:
      argv: the config file, then options.
      say: called with what differs from the config file, or from the run as it was.

    Raises:
      ValueError, OSError: if the file, or the config of the run, is none that can be read.
    """
    path, options = Path(argv[0]), [arg for arg in argv[1:] if arg != SMALL]
    default = read_config(path, small=SMALL in argv[1:])
    asked = _given(path, options, default)
    config, workdir = asked.experiment, asked.workdir or Path("runs") / asked.experiment.name
    if (workdir / "config.json").is_file() and checkpoint.steps(workdir / "checkpoints"):
        saved = experiment.read(workdir)
        config = _given(path, options, saved).experiment
        if changes := differences(saved, config):
            say(f"{workdir} is resumed, and this command changes {_listed(changes)}")
        if others := differences(config, asked.experiment):
            say(f"{workdir} is resumed with its own config.json, of which {path} would change {_listed(others)}")
    return _shorter_warmup(config, options, say), workdir


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _given(path: Path, options: list[str], default: Experiment) -> Args:
    types = tyro.conf.AvoidSubcommands[Args]
    return tyro.cli(types, args=options, default=Args(None, default), prog=f"jaxdiff train {path}")


def _shorter_warmup(config: Experiment, options: list[str], say: Callable[[str], None]) -> Experiment:
    """Fits the warm-up to a run that --train.steps made too short for it, unless that was given too."""
    steps, warmup = config.train.steps, config.optimizer.warmup
    words = {option.partition("=")[0].replace("-", "_") for option in options if option.startswith("--")}
    if not steps >= 1 or warmup < steps or "__train.steps" not in words or "__optimizer.warmup" in words:
        return config
    shorter = steps // 10
    say(f"optimizer.warmup is shortened from {warmup} to {shorter}, for a run of {steps} steps")
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, warmup=shorter))


def read_config(path: Path, small: bool = False) -> Experiment:
    """Returns the experiment that a config file describes; a small one is that of its `small`.

    Raises:
      FileNotFoundError: if there is no such file; lists those beside it.
      ValueError: if it is not a config, or raises itself: then its own line is named.
    """
    path = find(path)
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        near = near or sorted(p.stem for p in _shipped().glob("*.py"))
        raise FileNotFoundError(f"no config file {path}; there are {_listed(near)}")
    if path.suffix != ".py":
        raise ValueError(
            f"{path} is not a Python file, which configs are: write `def config() -> Experiment` into a .py file, as "
            "configs/quickstart.py does"
        )
    spec: Any = importlib.util.spec_from_file_location("jaxdiff_config", path)
    sys.path.insert(0, str(path.parent.absolute()))  # a config may start from one beside it
    module = importlib.util.module_from_spec(spec)
    _running(path, lambda: spec.loader.exec_module(module))
    if not callable(getattr(module, "config", None)):
        raise ValueError(f"{path} is not a config: it must define `def config() -> Experiment`")
    if not small:
        return _experiment(path, "config", _running(path, module.config))
    if not callable(getattr(module, "small", None)):
        raise ValueError(f"{path} has no small form: it must define `def small() -> Experiment`, or leave {SMALL} out")
    return _experiment(path, "small", _running(path, module.small))


def find(path: Path) -> Path:
    """Returns the file, or where there is none that of the package: 'quickstart' or 'configs/quickstart.py'."""
    own = path.suffix in ("", ".py") and str(path.parent) in (".", "configs")
    shipped = _shipped() / f"{path.stem}.py"
    return shipped if own and not path.is_file() and shipped.is_file() else path


def _shipped() -> Path:
    """Returns the configs of an installed package, or of the repository that it is run from."""
    package = Path(__file__).parents[1]
    return next((path for path in (package / "configs", package.parent / "configs") if path.is_dir()), package)


def _running(path: Path, call: Callable[[], Any]) -> Any:
    """Returns the result of code of a config file; what it raises is said in one line, with its own line."""
    try:
        return call()
    except Exception as error:  # whatever a user's code raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
        where, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (path, [1, *lines][-1])
        raise ValueError(f"{where}, line {line}: {type(error).__name__}: {error}".splitlines()[0]) from error


def _experiment(path: Path, name: str, value: Any) -> Experiment:
    if not isinstance(value, Experiment):
        raise ValueError(f"{path}: {name}() gives {type(value).__name__}: expected an Experiment")
    return value


def differences(before: Experiment, after: Experiment) -> list[str]:
    """Lists the fields that differ, as 'train.steps 6 -> 9'."""
    one, two = (dict(_flat(json.loads(experiment.to_json(config)))) for config in (before, after))
    names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    return [f"{name} {json.dumps(one.get(name))} -> {json.dumps(two.get(name))}" for name in names]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else name)
    else:
        yield path, value
