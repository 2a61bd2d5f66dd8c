"""D3PM: diffusion of the levels themselves, by a network that says which level a value had at first.

The loss is the paper's hybrid (equation 5), in bits/dim: T times the bound's term at a step drawn for each picture, and
`auxiliary` times the cross entropy of the network's guess. What is measured is the whole bound, a call for each step.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.diffusion import categorical
from jaxdiff.diffusion.categorical import Kind
from jaxdiff.models.config import NetConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.objectives import likelihood
from jaxdiff.pipelines.direct import Tempered
from jaxdiff.sampling import walk
from jaxdiff.tasks.family import FamilyConfig
from jaxdiff.training import OptimizerConfig, Variables
from jaxdiff.typing import Cond, Key, Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(FamilyConfig):
    """Diffusion of levels.

    Attributes:
      net: the network, which makes `levels` numbers a value.
      chain: how levels are lost.
      steps: steps of the chain.
      auxiliary: weight of the cross entropy.
    """

    net: NetConfig = UNetConfig(out_channels=24)
    levels: int = 8
    chain: Kind = "gaussian"
    steps: int = 100
    auxiliary: float = 0.001

    likelihood = "bound"
    options = Tempered

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        self.net.check(data.size, data.size)
        for name, own in (("out_channels", self.channels * self.levels), ("labels", self.classes)):
            if (there := getattr(self.net, name, own)) != own:
                raise ValueError(
                    f"task.net.{name} is {there}: expected {own}, for {self.channels} channels of {self.levels} levels "
                    f"and {self.classes} classes"
                )
        if not 2 <= self.steps <= 10_000:
            raise ValueError(f"task.steps is {self.steps}: expected 2 to 10000")
        if not 0 <= self.auxiliary < float("inf"):
            raise ValueError(f"task.auxiliary is {self.auxiliary}: expected a number of at least 0")

    def _calls(self, shape: tuple[int, ...]) -> int:
        return self.steps

    def _chain(self) -> categorical.Chain:
        return categorical.chain(self.chain, self.levels, self.steps)

    def _init(self, key: Key, x: Array, label: Array | None) -> Variables:
        cond = Cond(label=None if label is None else label[:1])
        return Variables(self.net.build().init(key, jnp.zeros((1, *x.shape[1:])), jnp.zeros(1), cond)["params"])

    def _logits(self, weights: Variables, xt: Array, t: Array, label: Array | None) -> Array:
        """Returns the logits of x_0 [b h w c K]; what is likely is what is seen, as far as the network is silent."""
        cond, seen = Cond(label=label), likelihood.unit(xt, self.levels)
        out: Any = self.net.build().apply({"params": weights.params}, seen, t * (1000 / self.steps), cond)
        return out.reshape(*xt.shape, self.levels) + jax.nn.one_hot(xt, self.levels)

    def _bits(
        self, weights: Variables, x: Array, label: Array | None, keys: Key, *, measured: bool = False
    ) -> tuple[Array, Metrics]:
        of, dims = self._chain(), x[0].size
        each = lambda values: values.reshape(len(x), -1).sum(1)
        fold = lambda n: jax.vmap(lambda key: jax.random.fold_in(key, n))(keys)
        prior = each(categorical.prior_term(of, x))

        def term(t: Array, keys: Key) -> tuple[Array, Array]:
            xt = categorical.noised(of, x, t, keys)
            logits = self._logits(weights, xt, t, label)
            return each(categorical.terms(of, logits, x, xt, t)), each(-likelihood.categorical(logits, x))

        if measured:
            add = lambda total, t: (total + term(jnp.full(len(x), t), fold(t))[0], None)
            total, _ = jax.lax.scan(add, prior, jnp.arange(1, of.steps + 1))
            return likelihood.bits(-total, dims), {}
        t = jax.vmap(lambda key: jax.random.randint(key, (), 1, of.steps + 1))(fold(0))
        nats, guess = term(t, fold(1))
        bound = likelihood.bits(-of.steps * nats - prior, dims)
        return bound + self.auxiliary * likelihood.bits(-guess, dims), {"bound": bound.mean()}

    def _draw(self, weights: Variables, numbers: Any, keys: Key, label: Array | None, shape: tuple[int, ...]) -> Array:
        denoise = lambda x, t: self._logits(weights, x, t, label)
        return walk.levels(self._chain(), denoise, keys, shape, numbers["temperature"])
