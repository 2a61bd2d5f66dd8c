"""The run that a student learns from: what it must have in common with the student, and its weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from jaxdiff import kinds
from jaxdiff.data.source import DataConfig
from jaxdiff.data.text import listing
from jaxdiff.diffusion.process_check import DISCRETE
from jaxdiff.tasks.task import KINDS, TaskConfig
from jaxdiff.training import checkpoint

TAUGHT = ("consistency_distillation", "progressive")
"""The objectives that learn from a teacher."""
_FREE = {"dropout", "remat", "dtype"}
"""Numbers of networks that may differ where the weights are the same."""
_PROCESS = ("schedule", "zero_terminal", "shift", "beta_min", "beta_max", "sigma_min", "sigma_max", "prediction")


class Teacher(NamedTuple):
    """A run whose model teaches another.

    Attributes:
      path: path of the run.
      task: its own.
      size: size of its pictures.
    """

    path: Path
    task: Any
    size: int

    @property
    def folder(self) -> Path:
        """Returns the run's directory, also where `path` is one of its checkpoints."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path


def read(path: Path, field: str = "task.teacher") -> Teacher:
    """Reads what a run is, which `field` of a config names; its weights stay where they are.

    Raises:
      FileNotFoundError: if `path` is not a run of `jaxdiff train`, or has no checkpoint.
      ValueError: if its config.json is damaged, or from before runs had a task.
    """
    found = Teacher(path, None, 0)
    base: Any = TaskConfig  # which mypy takes for a class to make, and it is abstract
    config = found.folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"{field} is {path}, not a run of `jaxdiff train`: it has no config.json")
    if not checkpoint.steps(found.folder / "checkpoints"):
        raise FileNotFoundError(f"{field} is {path}, which has no checkpoint yet: train it first")
    try:
        fields = json.loads(config.read_text(encoding="utf-8"))
        task = kinds.build(base, fields["task"])
        size = kinds.build(DataConfig, fields.get("data", {})).size
    except KeyError:
        raise ValueError(f"{config} is from before runs had a task: resume that run, which writes it anew") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{config}: {error}") from error
    return found._replace(task=task, size=size)


def check(teacher: Teacher, student: Any, size: int, kind: Any = None) -> None:
    """Refuses a teacher whose weights the student cannot start from, or whose process is another.

    Args:
      teacher: teacher of the student.
      student: a task with `process`, `net`, `text` and `condition`.
      size: size of its pictures.
      kind: class of the teacher's task; None: the student's.

    Raises:
      ValueError: names what differs.
    """
    if type(teacher.task) is not (kind or type(student)):
        wanted = kind.__module__.rpartition(".")[2] if kind else KINDS.kind(student)
        raise ValueError(
            f"task.teacher is {teacher.path}, a run of the task {KINDS.kind(teacher.task)}: expected one of {wanted}"
        )
    if teacher.task.process.says != "prediction":
        raise ValueError(
            f"task.teacher is {teacher.path}, whose network says its {teacher.task.process.says}: expected a run with "
            "task.process.objective denoising, bound or progressive, and no learned variance"
        )
    steps = student.process.schedule in DISCRETE
    there, here = _facts(teacher.task, teacher.size, steps), _facts(student, size, steps)
    names = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    if names:
        differ = listing(f"{name} is {there.get(name)} there and {here.get(name)} here" for name in names)
        raise ValueError(f"task.teacher is {teacher.path}, another model than its student: {differ}")


def _facts(task: Any, size: int, steps: bool) -> dict[str, Any]:
    """Returns what teacher and student have in common, by name."""
    found = {"data.size": size, "task.condition": task.condition, "task.net": type(task.net).__name__}
    found |= {f"task.{name}": getattr(task, name) for name in ("picture", "blur") if hasattr(task, name)}
    for part in ("net", "text") if task.condition == "text" else ("net",):
        numbers = getattr(task, part)
        names = [field.name for field in dataclasses.fields(numbers) if field.name not in _FREE]
        found |= {f"task.{part}.{name}": getattr(numbers, name) for name in names}
    return found | {f"task.process.{name}": getattr(task.process, name) for name in (*_PROCESS, *["steps"] * steps)}
