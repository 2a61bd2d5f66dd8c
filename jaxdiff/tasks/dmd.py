"""Distribution matching distillation of a published model: a student of 1 to 4 steps, its whole U-Net trained.

The loss is `diffusion.matching`'s: the student is moved by the difference of two scores, its guided teacher's and that
of a second U-Net, `fake`, which learns to denoise what the student makes, beside it. `groups` gives that network its
own rate; with `optimizer.every` n the student moves once while the fake, at every 1, moves n times:

    groups=(("(fake|critic)/.*", OptimizerConfig(lr=5e-6)),)

With `adversarial` w a critic, too, tells latents of pictures from what was made (`tasks.judged`). The student is
sampled with `lcm`, without guidance, at the `steps` that it was trained for; `picture_dmd` does the same of a run.

Sources: Yin et al. 2023, arXiv 2311.18828; Yin et al. 2024, arXiv 2405.14867 (DMD2).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion import loss as losses
from jaxdiff.diffusion import matching
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.tasks import judged
from jaxdiff.tasks.distilled import WholeStudent
from jaxdiff.tasks.published import Assets
from jaxdiff.training import Known, OptimizerConfig
from jaxdiff.typing import Batch, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(WholeStudent):
    """Distribution matching.

    Attributes:
      steps: steps of the student, a divisor of the model's.
      adversarial: weight of the critic's term; 0: no critic.
      critic: critic of latents.
    """

    steps: int = 4
    guidance: tuple[float, float] = (8.0, 8.0)
    adversarial: float = 0.0
    critic: PatchCriticConfig = PatchCriticConfig(layers=2)

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        model = self._outline().model
        count: Any = getattr(model.process.schedule, "steps", 0)
        if not 1 <= self.steps <= count or count % self.steps:
            raise ValueError(f"task.steps is {self.steps}: expected a divisor of the model's {count} steps")
        judged.check(self.critic, self.adversarial, data.size // model.factor)
        super().check(data, optimizer)

    def _scheduler(self) -> dict[str, Any]:
        return {"_class_name": "LCMScheduler", "original_inference_steps": self.steps}

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        params, frozen = super()._start(assets, key, loaded)
        model, beside = assets.base.model, {"fake": dict(params)}
        if self.adversarial:
            beside["critic"] = dict(judged.begin(self.critic, key, assets.size // model.factor, model.channels))
        return {**params, **beside}, frozen

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        own = {name: x for name, x in params.items() if name not in ("fake", "critic")}
        return super()._weights(assets, own, frozen)

    def _errors(self, assets: Assets) -> Callable[..., Array]:
        process, network, conditions = assets.base.model.process, self._network(assets), self._conditions(assets)
        schedule: Any = process.schedule
        each = matching.matching(network, schedule, process.kind, self.steps)

        def errors(
            params: Params, weights: Params, known: Known, batch: Batch, x0: Array, u: Array, keys: Key
        ) -> Array:
            cond = self._cond(assets, weights, conditions(batch, losses.dropped(keys, self.drop)))
            fake = self._weights(assets, params["fake"], known.frozen)
            teacher = self._guided(assets, known, batch, keys)
            found = each(weights, fake, teacher, x0, u, cond, cond, keys)
            loss = found.student + found.fake
            if not self.adversarial:
                return loss
            return loss + judged.terms(self.critic, self.adversarial, params["critic"], found.made, x0)

        return errors
