"""The questions that a kind of task answers: numbers, files, training, sampling, and what other tools see of it.

A kind is one module of this package, or one that another package names in the entry point group `jaxdiff.tasks`; its
class is called `Config`, and the name of the module is its tag in config.json.
"""

import abc
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jaxdiff.data.source import DataConfig, Source
from jaxdiff.kinds import Kinds
from jaxdiff.parallel import MeshSpec
from jaxdiff.pretrained.read import Bundle
from jaxdiff.training import OptimizerConfig, Task, Variables
from jaxdiff.typing import Batch, Params

Spec = MeshSpec | Literal["pmap"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(abc.ABC):
    """The numbers of a task. Fields annotated with this class take the class of their default on the command line."""

    @abc.abstractmethod
    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data, before anything is opened.

        Raises:
          ValueError: names the fields, what they are, and what is expected.
        """

    def check_steps(self, steps: int) -> None:  # noqa: B027 (most tasks have no such number)
        """Refuses a run of so many steps where something would begin after its end.

        Raises:
          ValueError: names the field, what it is, and what is expected.
        """

    def check_batch(self, batch_size: int, parts: int) -> None:  # noqa: B027 (most losses are of each example)
        """Refuses batches that the loss is not of: of so many examples on all devices, worked through in parts.

        Raises:
          ValueError: names the field, what it is, and what is expected.
        """

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Any:
        """Reads what a run's directory holds beside the weights, such as a vocabulary; a `new` run makes and writes it.

        Args:
          folder: folder of the run.
          data: says which examples the source gives.
          source: that is trained on; None where nothing is trained.
          new: whether the run has no checkpoint yet; every process calls, and the first one writes.

        Raises:
          FileNotFoundError: if a file is missing that an old run needs.
          ValueError: if a file is damaged, or does not belong to `source`.
        """
        return None

    def described(self, data: DataConfig) -> tuple[Any, Params, Batch] | None:
        """Returns stand-ins for a dry run of a task that needs networks and names none; None: `assets` serve.

        Returns:
          Assets; the shapes of what `Task.load` would read; and the shapes of a batch of one.
        """
        return None

    @abc.abstractmethod
    def task(self, assets: Any, spec: Spec = MeshSpec()) -> Task:
        """Returns what a run trains; `spec` says how devices share its previews.

        Raises:
          ValueError: if a preview cannot be made of the assets.
        """

    def sampled(self) -> "TaskConfig":
        """Returns the task of a run that is only read, without what training alone needs, such as a teacher."""
        return self

    def follows(self, image: bool = False) -> Path | None:
        """Returns the run whose samples this one's are made of, such as a cascade's earlier stage; None: of none.

        Args:
          image: whether a picture is given, which may stand for that run's.
        """
        return None

    def pipeline(self, assets: Any, weights: Variables, spec: Spec = MeshSpec()) -> Any:
        """Returns what samples: (prompts, *, key, ...) -> uint8 [b h w 3].

        Raises:
          ValueError: where there is nothing to sample.
        """
        raise ValueError(f"a run of the task {KINDS.kind(self)!r} is not sampled")

    def bundle(self, assets: Any, weights: Variables) -> Bundle:
        """Returns the networks as other tools know them.

        Raises:
          ValueError: where other tools have no such class.
        """
        raise ValueError(f"a run of the task {KINDS.kind(self)!r} is not a model that other tools know")

    def apart(self, assets: Any, weights: Variables, out: Path, layout: str) -> Callable[[Path], None] | None:
        """Returns what writes by itself what was trained, a LoRA for instance; None where a run is a whole model.

        Args:
          assets: assets of the run.
          weights: with the averaged parameters.
          out: what is to be written in the end: its ending tells a file from a directory.
          layout: layout of whose tools, `diffusers` or `kohya`.

        Raises:
          ValueError: if other tools have no such file, in this layout, or under such a name.
        """
        return None


KINDS: Kinds[TaskConfig] = Kinds("jaxdiff.tasks", TaskConfig)
