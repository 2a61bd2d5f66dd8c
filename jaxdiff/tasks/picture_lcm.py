"""Latent consistency distillation of a run of our own, on pixels: a student of 1 to 8 steps.

    loss = mean of d(f(x_t, t), stop_gradient f'(x_s, s)),    x_s one DDIM step of the guided teacher from x_t to s

f is `diffusion.distill.latent_consistency`'s; f' has the average of the weights. The student is sampled with `lcm`, in
a number of steps that divides `intervals`: those times are trained. `lcm` does the same of a published model.

Source: Luo et al. 2023, arXiv 2310.04378.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion import distill
from jaxdiff.tasks.consistency import ConsistencyNumbers
from jaxdiff.tasks.student import StudentConfig
from jaxdiff.training import Known, OptimizerConfig
from jaxdiff.typing import Cond, Denoise, Key, Metrics, Network, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ConsistencyNumbers, StudentConfig):
    """Latent consistency on pixels."""

    intervals: int = 40

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the teacher."""
        self.check_numbers(self.process.steps, f"task.process.steps, {self.process.steps}")
        super().check(data, optimizer)

    def _sampler(self) -> tuple[str, dict[str, Any]]:
        return "lcm", {"scaling": self.scaling}

    def _errors(self, network: Network, assets: Any) -> Callable[..., tuple[Array, Metrics]]:
        each = distill.latent_consistency(
            network, self.process.make_schedule(), self.process.prediction, self.intervals, self.huber, self.scaling
        )

        def errors(
            params: Params, known: Known, teacher: Denoise, x0: Array, u: Array, cond: Callable[..., Cond], keys: Key
        ) -> tuple[Array, Metrics]:
            found, _ = each(params, known.ema, teacher, x0, u, cond(params), keys, cond(known.ema))
            return found, {}

        return errors
