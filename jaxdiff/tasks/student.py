"""Students of a run of our own that sample in a few steps: what `picture_lcm` and `picture_dmd` have in common.

The teacher is the run as it was, guided: D_0 + g (D - D_0), D_0 without the condition. So guidance is in the student,
which is sampled without. Both share the process; a student starts as its teacher is, and knows it no more afterwards.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion import draws, guidance, prediction, times
from jaxdiff.diffusion import loss as losses
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.diffusion.process_check import DISCRETE
from jaxdiff.models.config import NetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.pretrained import scheduler
from jaxdiff.tasks import picture
from jaxdiff.tasks import teacher as teachers
from jaxdiff.tasks.task import Spec
from jaxdiff.training import Known, OptimizerConfig, Task, Variables
from jaxdiff.training import optimizer as optimizers
from jaxdiff.typing import Batch, Denoise, Key, Metrics, Network, Params

_SHARED = ("schedule", "zero_terminal", "steps", "beta_min", "beta_max", "prediction", "clip")
"""Numbers of the process that a student has from its teacher; nothing reads the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentConfig(picture.Config):
    """A student in few steps of a run of the task picture.

    Attributes:
      guidance: scale of the teacher; 1 is off.
      groups: (path pattern, optimizer) of parameters that move otherwise than the run's optimizer says.
    """

    guidance: float = 1.0
    groups: tuple[tuple[str, OptimizerConfig], ...] = ()

    @abc.abstractmethod
    def _errors(self, network: Network, assets: picture.Assets) -> Callable[..., tuple[Array, Metrics]]:
        """Returns (params, known, teacher, x0, u [b], cond, keys [b]) -> loss [b], metrics.

        `teacher` is a denoiser, guided; `cond` makes a network's condition of its parameters.
        """

    @abc.abstractmethod
    def _sampler(self) -> tuple[str, dict[str, Any]]:
        """Returns the sampler of the student, on the trailing grid, and its options."""

    def _reads(self) -> tuple[str, ...]:
        """Returns further numbers of the process that the loss reads."""
        return ()

    def _beside(self, key: Key, assets: picture.Assets, teacher: Params) -> Params:
        """Returns what is trained beside the student."""
        return {}

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the teacher."""
        for field in dataclasses.fields(ProcessConfig):
            value = getattr(self.process, field.name)
            if field.name not in (*_SHARED, *self._reads()) and value != field.default:
                raise ValueError(
                    f"task.process.{field.name} is {value}, which a student does not read: leave it at {field.default}"
                )
        if self.process.schedule not in DISCRETE:
            raise ValueError(
                f"task.process.schedule is {self.process.schedule!r}, of continuous times: expected one of trained "
                f"steps, {', '.join(DISCRETE)}"
            )
        if self.process.prediction in ("eps", "score"):
            raise ValueError(
                f"task.process.prediction is {self.process.prediction!r}: of pure noise that says nothing, so learn of "
                "a teacher that predicts x0 or v"
            )
        if not 0 <= self.guidance < 1e6 or (self.condition == "none" and self.guidance != 1):
            raise ValueError(
                f"task.guidance is {self.guidance} and task.condition {self.condition!r}: expected 0 or more, and 1 "
                "without a condition"
            )
        super().check(data, optimizer)

    def check_steps(self, steps: int) -> None:
        """Refuses a group's optimizer that does not fit the run."""
        for pattern, optimizer in self.groups:
            optimizers.check(optimizer, steps, f" of group {pattern!r}")

    def _check_teacher(self, size: int) -> None:
        if self.teacher is None:
            raise ValueError("task.teacher is None: give the run to learn from, --task.teacher RUN")
        teachers.check(teachers.read(self.teacher), self, size, picture.Config)

    def task(self, assets: Any, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the student."""
        own = ("unet", "text") if self.condition == "text" else ("unet",)
        return dataclasses.replace(super().task(assets, spec), groups=self.groups, averaged=own)

    def _taught(self, key: Key, assets: Any, teacher: Params, kept: Params) -> Variables:
        return Variables({**teacher, **self._beside(key, assets, teacher)}, {**kept, "teacher": teacher})

    def _sampled(self, params: Params | None = None) -> scheduler.Process:
        name, options = self._sampler()
        return dataclasses.replace(super()._sampled(params), sampler=name, grid="trailing", options=options)

    def _loss(self, net: NetConfig, assets: Any) -> Any:
        network: Any = net.build()
        plain: Any = net.deterministic().build()

        def loss(params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
            away = lambda gone: self._inputs(assets, known.frozen, batch, keys, gone)
            inputs, nothing = away(losses.dropped(keys, self.drop)), away(jnp.full(len(keys), True))
            cond = lambda params, inputs=inputs: self._cond(assets, params, known.frozen, inputs)
            apply = lambda params, x, t, cond: network.apply({"params": params["unet"]}, x, t, cond, keys)
            taught = known.frozen["teacher"]
            teacher = self._teacher(
                lambda params, x, t, cond: plain.apply({"params": params["unet"]}, x, t, cond),
                taught,
                cond(taught),
                cond(taught, nothing),
            )
            x0, u = self._x0(assets, known.frozen, batch, keys), draws.uniform(keys)
            found, metrics = self._errors(apply, assets)(params, known, teacher, x0, u, cond, keys)
            return found.mean(), {**times.by_quarter(u, found), **metrics}, {}

        return loss

    def _teacher(self, network: Network, params: Params, cond: Any, null: Any) -> Denoise:
        """Returns the teacher as a denoiser."""
        schedule, kind = self.process.make_schedule(), self.process.prediction
        if self.guidance == 1:
            denoise = prediction.denoiser(network, params, cond, schedule, kind)
        else:
            denoise = guidance.classifier_free(network, params, cond, null, schedule, kind)
        scale = {"guidance": np.float32(self.guidance)}
        return lambda x, t, aux: jax.lax.stop_gradient(denoise(x, t, scale))
