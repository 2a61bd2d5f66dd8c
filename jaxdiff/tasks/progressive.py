"""Progressive distillation of a published model that predicts v: a student with half of the teacher's steps.

One run is one halving: it is written by `jaxdiff convert` as a model, which the next run starts from, with half the
`steps`. The first teacher may be guided, and those after it have guidance in them (`task.guidance` 1 1). The student
is sampled with DDIM, the steps trailing.

Sources: Salimans & Ho 2022, arXiv 2202.00512, algorithm 2; Meng et al. 2023, arXiv 2210.03142 (guidance).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion import distill
from jaxdiff.diffusion import loss as losses
from jaxdiff.tasks.distilled import WholeStudent
from jaxdiff.tasks.published import Assets
from jaxdiff.training import Known, OptimizerConfig
from jaxdiff.typing import Batch, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(WholeStudent):
    """Progressive distillation.

    Attributes:
      steps: steps of the student; the teacher makes twice as many.
    """

    steps: int = 8
    guidance: tuple[float, float] = (1.0, 1.0)

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other, and models that predict eps."""
        super().check(data, optimizer)
        process = self._outline().model.process
        if self.steps < 1:
            raise ValueError(f"task.steps is {self.steps}: expected 1 or more")
        if process.kind != "v":
            raise ValueError(
                f"task.model is {self.model}, which predicts {process.kind}: of pure noise that says nothing, so train "
                "it to predict v first (the task finetune, task.prediction v_prediction)"
            )

    def _scheduler(self) -> dict[str, Any]:
        fields = {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True}
        return {"_class_name": "DDIMScheduler", **fields}

    def _errors(self, assets: Assets) -> Callable[..., Array]:
        process, network, conditions = assets.base.model.process, self._network(assets), self._conditions(assets)
        each = distill.progressive(network, process.schedule, process.kind, losses.truncated_snr())

        def errors(
            params: Params, weights: Params, known: Known, batch: Batch, x0: Array, u: Array, keys: Key
        ) -> Array:
            cond = self._cond(assets, weights, conditions(batch, losses.dropped(keys, self.drop)))
            return each(weights, self._guided(assets, known, batch, keys), x0, u, cond, keys, self.steps)

        return errors
