"""Students of a published model that sample in a few steps: what all ways of distilling one share.

The teacher is the model itself, as it was, guided: its estimate is D_0 + g (D - D_0), D_0 without the caption, with g
drawn anew for each example. So guidance is in the student, which is sampled without.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion import draws, guidance
from jaxdiff.diffusion.schedule import Discrete
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.model import make_model
from jaxdiff.pretrained.rules import few
from jaxdiff.pretrained.scheduler import said
from jaxdiff.pretrained.schedulers.fields import DEFAULTS, HARMLESS
from jaxdiff.tasks import base_model, finetune
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.published import Assets, PublishedConfig
from jaxdiff.tasks.task import Spec
from jaxdiff.training import Known, OptimizerConfig, Task
from jaxdiff.typing import Batch, Key, Network, Params

_GUIDANCE = 2**16 + 1  # beside the draws of a loss and of latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilledConfig(PublishedConfig):
    """A student in few steps.

    Attributes:
      guidance: the least and the most of the teacher's scale; 1 is off.
    """

    guidance: tuple[float, float] = (4.0, 16.0)

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        low, high = self.guidance
        if not 1 <= low <= high < 1e6:
            raise ValueError(f"task.guidance is {self.guidance}: expected the least and the most, of 1 or more")
        for name in ("prediction", "min_snr", "offset_noise", "condition_noise", "zero_terminal"):
            if getattr(self, name):
                value = getattr(self, name)
                raise ValueError(f"task.{name} is {value}, and a student follows its teacher: leave it out")
        if self.prior.prompt:
            raise ValueError("task.prior is for what learns a word: a student learns of its teacher, so leave it out")
        super().check(data, optimizer)
        if not isinstance(self._outline().model.process.schedule, Discrete):
            raise ValueError(f"task.model is {self.model}, of continuous times: a student skips some of trained steps")

    @abc.abstractmethod
    def _scheduler(self) -> dict[str, Any]:
        """Returns how the student is sampled: a class of the reference, and its fields beside the model's own."""

    def _outline(self) -> Base:
        """Returns the base with the student's scheduler."""
        base, means = super()._outline(), self._scheduler()
        kind = means["_class_name"]
        known = DEFAULTS[kind].keys() | HARMLESS.get(kind, {}).keys()
        config = {name: x for name, x in said(base.bundle.schedulers["scheduler"]).items() if name in known} | means
        index = {**base.bundle.index, "scheduler": ["diffusers", kind]}
        schedulers = {**base.bundle.schedulers, "scheduler": config}
        bundle = dataclasses.replace(base.bundle, index=index, schedulers=schedulers, guidance=1.0)
        return base._replace(bundle=bundle, model=make_model(bundle))

    def _teacher(self, assets: Assets, frozen: Params) -> Params:
        """Returns the parameters of the model as it was."""
        return frozen

    def _scales(self, keys: Key) -> Array:
        """Draws the teacher's scale of each example [b]."""
        low, high = self.guidance
        one = jax.vmap(lambda key: jax.random.uniform(key, minval=low, maxval=high))
        return one(draws.fold(keys, _GUIDANCE)) if low < high else jnp.full(len(keys), low)

    def _teacher_network(self, assets: Assets) -> Network:
        """Returns the teacher's U-Net, which is not conditioned on a guidance scale."""
        model = assets.base.model
        unet = dataclasses.replace(model.nets["unet"], guidance_width=0)
        plain = dataclasses.replace(model, nets={**model.nets, "unet": unet})
        return PublishedConfig._network(self, assets._replace(base=assets.base._replace(model=plain)))

    def _guided(self, assets: Assets, known: Known, batch: Batch, keys: Key) -> Any:
        """Returns the teacher as a denoiser (x_t, t, aux)."""
        process, weights = assets.base.model.process, self._teacher(assets, known.frozen)
        conditions = self._conditions(assets)
        cond, null = (
            self._cond(assets, weights, conditions(batch, jnp.full(len(keys), gone))) for gone in (False, True)
        )
        scale = self._scales(keys)
        denoise = guidance.classifier_free(
            self._teacher_network(assets), weights, cond, null, process.schedule, process.kind
        )
        return lambda x, t, aux: jax.lax.stop_gradient(denoise(x, t, {"guidance": scale}))


class WholeStudent(DistilledConfig, finetune.Config):
    """A student whose own weights are trained; the teacher's are kept beside them."""

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other, and to train text encoders, which both share."""
        super().check(data, optimizer)
        paths = base_model.trainable(self._outline(), self.train, "task.train")
        if wrong := [path for path in paths if not path.startswith("unet/")]:
            raise ValueError(
                f"task.train matches {few(wrong)}: student and teacher read the same text, so train the unet"
            )

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the student; what is trained beside it is not averaged."""
        return dataclasses.replace(super().task(assets, spec), averaged=("unet",))

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        params, frozen = super()._start(assets, key, loaded)
        return params, {**frozen, "teacher": dict(params)}

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        return super()._weights(assets, params, {name: x for name, x in frozen.items() if name != "teacher"})

    def _teacher(self, assets: Assets, frozen: Params) -> Params:
        return self._weights(assets, frozen["teacher"], frozen)
