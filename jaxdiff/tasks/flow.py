"""Normalising flows: a bijection from pictures to noise, whose density is that of the noise times a determinant.

A density at points is no probability, so pictures of whole levels x are dequantised, y = (x + u) / L with u in [0, 1):

    log P(x) >= E_u log p(y) - d log L - log q(u | x)

with u uniform (Uria et al. 2013), or drawn by a flow q of its own (Ho et al. 2019, arXiv 1902.00275, section 3.1).
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.models import bijectors
from jaxdiff.models.bijectors import Bijector
from jaxdiff.models.config import NetConfig
from jaxdiff.models.flow import ORDERED, FlowConfig
from jaxdiff.objectives import likelihood
from jaxdiff.pipelines.direct import Tempered
from jaxdiff.tasks.family import FamilyConfig
from jaxdiff.training import Known, OptimizerConfig, Variables
from jaxdiff.typing import Batch, Key, Metrics, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(FamilyConfig):
    """A normalising flow.

    Attributes:
      net: the flow.
      prior: the density of the noise.
      dequantise: how u is drawn.
      least: a of the logit that comes first, between 0 and a half.
      memory: how slowly the averages of batch norm forget.
    """

    net: NetConfig = FlowConfig()
    prior: Literal["gaussian", "logistic"] = "gaussian"
    dequantise: Literal["uniform", "variational"] = "uniform"
    least: float = 0.05
    memory: float = 0.99

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
                f"task.classes is {self.classes}, and a flow of the family {self.net.family} is told no class: set it "
                "to 0, or choose a family of couplings"
            )

    def _calls(self, shape: tuple[int, ...]) -> int:
        """Returns calls of the whole flow: one, or of an autoregressive one, as many as numbers."""
        return int(np.prod(shape)) if getattr(self.net, "family", "") == "maf" else 1

    def _flow(self, shape: tuple[int, ...]) -> Bijector:
        net: Any = self.net
        return bijectors.chain([("logit", bijectors.logit(self.least)), ("flow", net.bijector(shape))])

    def _noise(self, shape: tuple[int, ...]) -> Bijector:
        """Returns the flow from noise to u, given the picture: two couplings and a sigmoid."""
        own: Any = self.net
        net = dataclasses.replace(own, family="realnvp")
        parts = [(f"coupling_{i}", net.checkerboard(shape, i)) for i in range(2)]
        return bijectors.chain([*parts, ("sigmoid", bijectors.swapped(bijectors.logit(0.0)))])

    def _init(self, key: Key, x: Array, label: Array | None) -> Variables:
        first, second, noise = jax.random.split(key, 3)
        cond, params = self._told(label), {}
        if self.dequantise == "variational":
            params["dequantise"] = self._noise(x.shape[1:]).init(second, 0.0 * x, self._seen(x, cond))
        y = (x + jax.random.uniform(noise, x.shape)) / self.levels
        kept, moving = bijectors.apart(self._flow(x.shape[1:]).init(first, y, cond))
        return Variables({**params, "flow": kept}, extra=moving)

    def _more(self, assets: Any) -> dict[str, Any]:
        slow = lambda old, new: self.memory * old + (1 - self.memory) * new
        return {"absorb": lambda extra, stats: jax.tree.map(slow, extra, stats)}

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        loss, metrics, _ = super()._loss(params, known, batch, keys)
        if not known.extra:
            return loss, metrics, {}
        x, label = self.read(batch["image"]), batch.get("label")
        if len(x) < 2:
            raise ValueError("train.batch_size is 1 on a device: statistics of a batch need two examples or more")
        flow = bijectors.joined(params["flow"], known.extra)
        stats = self._flow(x.shape[1:]).stats(flow, (x + 0.5) / self.levels, self._told(label))
        return loss, metrics, jax.lax.stop_gradient(stats)

    def _params(self, weights: Variables) -> Params:
        return bijectors.joined(weights.params["flow"], weights.extra)

    def _told(self, label: Array | None) -> Array | None:
        """Returns what couplings are told of the class, [b 1 1 classes]."""
        return None if label is None else jax.nn.one_hot(label, self.classes)[:, None, None]

    def _seen(self, x: Array, cond: Array | None) -> Array:
        """Returns what the flow of u is told: the picture, and the class."""
        seen = likelihood.unit(x, self.levels)
        if cond is None:
            return seen
        return jnp.concatenate([seen, jnp.broadcast_to(cond, (*x.shape[:3], self.classes))], -1)

    def _bits(
        self, weights: Variables, x: Array, label: Array | None, keys: Key, *, measured: bool = False
    ) -> tuple[Array, Metrics]:
        shape, cond, params = x.shape[1:], self._told(label), weights.params
        if self.dequantise == "uniform":
            u, log_q = jax.vmap(lambda key: jax.random.uniform(key, shape))(keys), jnp.zeros(len(x))
        else:
            noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
            u, det = self._noise(shape).forward(params["dequantise"], noise, self._seen(x, cond))
            log_q = bijectors.log_normal(noise.reshape(len(x), -1)) - det
        z, det = self._flow(shape).forward(self._params(weights), (x + u) / self.levels, cond)
        density = bijectors.log_normal if self.prior == "gaussian" else bijectors.log_logistic
        dims = int(np.prod(shape))
        return likelihood.bits(density(z) + det - dims * np.log(self.levels) - log_q, dims), {}

    def _draw(self, weights: Variables, numbers: Any, keys: Key, label: Array | None, shape: tuple[int, ...]) -> Array:
        draw = jax.random.normal if self.prior == "gaussian" else jax.random.logistic
        z = numbers["temperature"] * jax.vmap(lambda key: draw(key, (int(np.prod(shape)),)))(keys)
        y, _ = self._flow(shape).inverse(self._params(weights), z, self._told(label))
        return jnp.clip(jnp.floor(y * self.levels), 0, self.levels - 1).astype(jnp.int32)
