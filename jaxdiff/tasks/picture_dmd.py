"""Distribution matching distillation of a run of our own, on pixels: a student of 1 to 4 steps.

The loss is `diffusion.matching`'s: the student is moved by the difference of two scores, its teacher's and that of a
second network, `fake`, which learns to denoise what the student makes, beside it. `groups` gives that network its own
rate; with `optimizer.every` n the student moves once while the fake, at every 1, moves n times (DMD2, section 4.2):

    groups=(("(fake|critic)/.*", OptimizerConfig(lr=1e-3)),)

With `adversarial` w a critic, too, tells pictures from what was made (DMD2, section 4.3; `tasks.judged`): by that alone
a student may get better than its teacher. `dmd` does the same of a published model.

Sources: Yin et al. 2023, arXiv 2311.18828; Yin et al. 2024, arXiv 2405.14867 (DMD2).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion import matching, objective
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.tasks import judged
from jaxdiff.tasks.student import StudentConfig
from jaxdiff.training import Known, OptimizerConfig
from jaxdiff.typing import Cond, Denoise, Key, Metrics, Network, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudentConfig):
    """Distribution matching on pixels; `process.weight` is that of the fake's error.

    Attributes:
      steps: steps of the student.
      adversarial: weight of the critic's term; 0: no critic.
      critic: critic of pictures.
    """

    steps: int = 1
    adversarial: float = 0.0
    critic: PatchCriticConfig = PatchCriticConfig(width=32, layers=2)

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the teacher."""
        if not 1 <= self.steps <= self.process.steps:
            raise ValueError(f"task.steps is {self.steps}: expected 1 to {self.process.steps}; 1 to 4 are usual")
        judged.check(self.critic, self.adversarial, data.size)
        super().check(data, optimizer)

    def _reads(self) -> tuple[str, ...]:
        return "weight", "weight_number"

    def _sampler(self) -> tuple[str, dict[str, Any]]:
        return "consistency", {}

    def _beside(self, key: Key, assets: Any, teacher: Params) -> Params:
        critic = {"critic": judged.begin(self.critic, key, assets.size, 3)} if self.adversarial else {}
        return {"fake": teacher, **critic}

    def _errors(self, network: Network, assets: Any) -> Callable[..., tuple[Array, Metrics]]:
        schedule: Any = self.process.make_schedule()
        weight = objective.weight_of(self.process)
        each = matching.matching(network, schedule, self.process.prediction, self.steps, weight)

        def errors(
            params: Params, known: Known, teacher: Denoise, x0: Array, u: Array, cond: Callable[..., Cond], keys: Key
        ) -> tuple[Array, Metrics]:
            fake = params["fake"]
            found = each(params, fake, teacher, x0, u, cond(params), cond(fake), keys)
            loss, metrics = found.student + found.fake, {"student": found.student.mean(), "fake": found.fake.mean()}
            if self.adversarial:
                critic = judged.terms(self.critic, self.adversarial, params["critic"], found.made, x0)
                loss, metrics = loss + critic, {**metrics, "critic": critic.mean()}
            return loss, metrics

        return errors
