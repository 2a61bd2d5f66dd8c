"""Latent consistency distillation of a published model: a student of 1 to 8 steps, its whole U-Net trained.

    loss = mean of d(f(x_t, t), stop_gradient f'(x_s, s)),    x_s one DDIM step of the guided teacher from x_t to s

f is `diffusion.distill.latent_consistency`'s; f' has the average of the weights, which an experiment's `ema` of 0 makes
the weights themselves. The student is sampled with `lcm`, without guidance; or, with `guidance_width`, it is
conditioned on the scale that its teacher had, and sampled at any of them in one call a step. `lcm_lora` trains a LoRA
by the same loss.

With `adversarial` w, a patch critic of latents tells f(x_t, t) from those of pictures (`tasks.judged`).

Source: Luo et al. 2023, arXiv 2310.04378.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion import distill
from jaxdiff.diffusion import loss as losses
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.tasks import base_model, judged
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.consistency import ConsistencyNumbers
from jaxdiff.tasks.distilled import DistilledConfig, WholeStudent
from jaxdiff.tasks.published import Assets
from jaxdiff.training import Known, OptimizerConfig
from jaxdiff.typing import Batch, Key, Params

_PROJECTION = "unet/guidance_proj/kernel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consistency(ConsistencyNumbers, DistilledConfig):
    """Latent consistency."""

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        count: Any = getattr(self._outline().model.process.schedule, "steps", 0)
        self.check_numbers(count, f"the model's {count} steps")
        super().check(data, optimizer)

    def _scheduler(self) -> dict[str, Any]:
        fields = {"original_inference_steps": self.intervals, "timestep_scaling": self.scaling}
        return {"_class_name": "LCMScheduler", **fields}

    def _more(self, params: Params, made: Array, x0: Array) -> Array:
        """Returns what is added to the loss of each example, of what the student made."""
        return jnp.zeros(len(made))

    def _errors(self, assets: Assets) -> Callable[..., Array]:
        process, network, conditions = assets.base.model.process, self._network(assets), self._conditions(assets)
        each = distill.latent_consistency(
            network, process.schedule, process.kind, self.intervals, self.huber, self.scaling
        )

        def errors(
            params: Params, weights: Params, known: Known, batch: Batch, x0: Array, u: Array, keys: Key
        ) -> Array:
            cond = self._cond(assets, weights, conditions(batch, losses.dropped(keys, self.drop)))
            if assets.base.model.embeds_guidance:
                cond = dataclasses.replace(cond, guidance=self._scales(keys))
            target = self._weights(assets, known.ema, known.frozen)
            found, made = each(weights, target, self._guided(assets, known, batch, keys), x0, u, cond, keys)
            return found + self._more(params, made, x0)

        return errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Consistency, WholeStudent):
    """Latent consistency distillation of the whole U-Net.

    Attributes:
      guidance_width: width of the waves that embed the teacher's scale for the student, so that it is asked for in
        sampling, `time_cond_proj_dim` of the reference; 0: guidance is in the student.
      adversarial: weight of the critic's term; 0: no critic.
      critic: critic of latents; its rate is that of `groups` with the pattern 'critic/.*', or the student's.
    """

    guidance_width: int = 0
    adversarial: float = 0.0
    critic: PatchCriticConfig = PatchCriticConfig(layers=2)

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if self.guidance_width < 0 or self.guidance_width % 2:
            raise ValueError(f"task.guidance_width is {self.guidance_width}: expected an even number, or 0")
        super().check(data, optimizer)
        if self.guidance_width and _PROJECTION not in base_model.trainable(self._outline(), self.train, "task.train"):
            raise ValueError(
                f"task.train leaves out {_PROJECTION}, which reads the scale of task.guidance_width: add it"
            )
        judged.check(self.critic, self.adversarial, data.size // self._outline().model.factor)

    def _outline(self) -> Base:
        base = super()._outline()
        if not self.guidance_width:
            return base
        found = base_model.with_guidance_embedding(base, self.guidance_width)
        return found._replace(bundle=dataclasses.replace(found.bundle, guidance=sum(self.guidance) / 2))

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        params, frozen = super()._start(assets, key, loaded)
        if not self.adversarial:
            return params, frozen
        model = assets.base.model
        return {**params, "critic": judged.begin(self.critic, key, assets.size // model.factor, model.channels)}, frozen

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        return super()._weights(assets, {name: x for name, x in params.items() if name != "critic"}, frozen)

    def _more(self, params: Params, made: Array, x0: Array) -> Array:
        if not self.adversarial:
            return super()._more(params, made, x0)
        return judged.terms(self.critic, self.adversarial, params["critic"], made, x0)
