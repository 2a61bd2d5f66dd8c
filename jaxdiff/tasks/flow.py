"""Normalising flows: a bijection from pictures to noise, whose density is that of the noise times a determinant.

A density at points is no probability, so pictures of whole levels are dequantised first (`models.dequantise`).
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.models import bijectors, dequantise
from jaxdiff.models.bijectors import Bijector, Mean
from jaxdiff.models.config import NetConfig
from jaxdiff.models.flow import ORDERED, FlowConfig
from jaxdiff.objectives import likelihood
from jaxdiff.parallel import MeshSpec
from jaxdiff.parallel.compile import DEVICES
from jaxdiff.pipelines.direct import Tempered
from jaxdiff.tasks.family import Assets, FamilyConfig
from jaxdiff.tasks.task import Spec
from jaxdiff.training import Known, OptimizerConfig, Task, Variables
from jaxdiff.typing import Batch, Key, Metrics, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(FamilyConfig):
    """A normalising flow.

    Attributes:
      net: the flow.
      prior: the density of the noise.
      dequantise: how u is drawn.
      least: a of the logit that comes first, between 0 and a half.
      memory: how slowly the averages of batch norm forget; 0.9 in the code of RealNVP.
    """

    net: NetConfig = FlowConfig()
    prior: Literal["gaussian", "logistic"] = "gaussian"
    dequantise: Literal["uniform", "variational"] = "uniform"
    least: float = 0.05
    memory: float = 0.9

    likelihood = "bound, by dequantising"
    options = Tempered

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        if not isinstance(self.net, FlowConfig):
            raise ValueError(f"task.net is a {type(self.net).__name__}: expected flow")
        self.net.check(data.size, data.size)
        if not 0 < self.least < 0.5:
            raise ValueError(f"task.least is {self.least}: expected a number between 0 and 0.5")
        if not 0 <= self.memory < 1:
            raise ValueError(f"task.memory is {self.memory}: expected at least 0, and below 1")
        if self.classes and self.net.family in ORDERED:
            raise ValueError(
                f"task.classes is {self.classes}, and a flow of the family {self.net.family} takes no class: set it "
                "to 0, or choose a family of couplings"
            )

    def check_batch(self, batch_size: int, parts: int) -> None:
        """Refuses a batch of one, and parts of a batch, where its moments are taken."""
        moments = self._net.norm == "batch"
        if moments and batch_size < 2:
            raise ValueError(f"train.batch_size is {batch_size}: moments of a batch need two examples or more")
        if moments and parts > 1:
            raise ValueError(
                f"train.accumulate is {parts}: the moments of task.net.norm 'batch' are of the whole batch: set it to "
                "1, or task.net.norm to actnorm"
            )

    @property
    def _net(self) -> FlowConfig:
        net: Any = self.net
        return net

    def _calls(self, shape: tuple[int, ...]) -> int:
        """Returns calls of the whole flow: one, or of an autoregressive one, as many as numbers."""
        return int(np.prod(shape)) if self._net.family == "maf" else 1

    def _flow(self, shape: tuple[int, ...]) -> Bijector:
        return bijectors.chain([("logit", bijectors.logit(self.least)), ("flow", self._net.bijector(shape))])

    def _init(self, key: Key, x: Array, label: Array | None) -> Variables:
        first, second, noise = jax.random.split(key, 3)
        cond, params = self._told(label), {}
        if self.dequantise == "variational":
            levels_seen = dequantise.seen(x, self.levels, cond)
            params["dequantise"] = dequantise.noise(self._net, x.shape[1:]).init(second, 0.0 * x, levels_seen)
        y = (x + jax.random.uniform(noise, x.shape)) / self.levels
        kept, moving = bijectors.apart(self._flow(x.shape[1:]).init(first, y, cond))
        return Variables({**params, "flow": kept}, extra=moving)

    def _more(self, assets: Any) -> dict[str, Any]:
        slow = lambda old, new: self.memory * old + (1 - self.memory) * new
        return {"absorb": lambda extra, stats: jax.tree.map(slow, extra, stats)}

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the flow; moments of a batch are those of all devices."""
        mean = functools.partial(jax.lax.pmean, axis_name=DEVICES) if spec == "pmap" else lambda own: own
        loss = functools.partial(self._loss, mean=mean)
        return dataclasses.replace(super().task(assets, spec), loss=loss)

    def _loss(
        self, params: Params, known: Known, batch: Batch, keys: Key, mean: Mean = lambda own: own
    ) -> tuple[Array, Metrics, Any]:
        if not known.extra:
            return super()._loss(params, known, batch, keys)
        x, label = self.read(batch["image"]), batch.get("label")
        run = self._flow(x.shape[1:]).learning
        cond = self._told(label)
        y, log_q = dequantise.draw(self._net, params.get("dequantise"), x, self.levels, cond, keys)
        z, det, _ = run(bijectors.joined(params["flow"], known.extra), y, cond, mean)
        # The averages are of the averaged weights, with which they are used.
        kept = bijectors.joined(known.ema["flow"], known.extra)
        *_, moments = run(kept, jax.lax.stop_gradient(y), cond, mean)
        return self._bound(z, det, log_q).mean(), {}, moments

    def _params(self, weights: Variables) -> Params:
        return bijectors.joined(weights.params["flow"], weights.extra)

    def _told(self, label: Array | None) -> Array | None:
        """Returns the condition of couplings on the class, [b 1 1 classes]."""
        return None if label is None else jax.nn.one_hot(label, self.classes)[:, None, None]

    def _bound(self, z: Array, det: Array, log_q: Array) -> Array:
        density = bijectors.log_normal if self.prior == "gaussian" else bijectors.log_logistic
        dims = z.shape[1]
        return likelihood.bits(density(z) + det - dims * np.log(self.levels) - log_q, dims)

    def _bits(
        self, weights: Variables, x: Array, label: Array | None, keys: Key, *, measured: bool = False
    ) -> tuple[Array, Metrics]:
        cond = self._told(label)
        y, log_q = dequantise.draw(self._net, weights.params.get("dequantise"), x, self.levels, cond, keys)
        z, det = self._flow(x.shape[1:]).forward(self._params(weights), y, cond)
        return self._bound(z, det, log_q), {}

    def _draw(self, weights: Variables, numbers: Any, keys: Key, label: Array | None, shape: tuple[int, ...]) -> Array:
        draw = jax.random.normal if self.prior == "gaussian" else jax.random.logistic
        z = numbers["temperature"] * jax.vmap(lambda key: draw(key, (int(np.prod(shape)),)))(keys)
        y, _ = self._flow(shape).inverse(self._params(weights), z, self._told(label))
        return jnp.clip(jnp.floor(y * self.levels), 0, self.levels - 1).astype(jnp.int32)
