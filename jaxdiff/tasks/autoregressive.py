"""Autoregressive models: the chain rule, each value given those before it, by one network that sees no others.

    log p(x) = sum_i log p(x_i | x_1 .. x_{i-1})

with a categorical distribution of each channel's level, or PixelCNN++'s mixture of logistics of a whole pixel.
"""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.models.config import NetConfig
from jaxdiff.models.ordered import OrderedConfig
from jaxdiff.models.pixelcnn import PixelCNNConfig
from jaxdiff.objectives import likelihood
from jaxdiff.pipelines.direct import Tempered
from jaxdiff.tasks.family import FamilyConfig
from jaxdiff.training import OptimizerConfig, Variables
from jaxdiff.typing import Key, Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(FamilyConfig):
    """An autoregressive model.

    Attributes:
      net: the network, pixelcnn, pixelrnn, made or image_transformer.
      values: the distribution of a value.
      mixtures: logistics of a mixture.
    """

    net: NetConfig = PixelCNNConfig()
    values: Literal["categorical", "logistic_mixture"] = "categorical"
    mixtures: int = 5

    likelihood = "exact"
    options = Tempered

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        if not isinstance(self.net, OrderedConfig):
            raise ValueError(
                f"task.net is a {type(self.net).__name__}: expected pixelcnn, pixelrnn, made or image_transformer"
            )
        if self.mixtures < 1:
            raise ValueError(f"task.mixtures is {self.mixtures}: expected 1 or more")
        self.net.check(data.size, data.size)
        self._network((data.size, data.size, self.channels))

    def _calls(self, shape: tuple[int, ...]) -> int:
        return shape[0] * shape[1] * (self.channels if self.values == "categorical" else 1)

    def _network(self, shape: tuple[int, ...]) -> Any:
        net: Any = self.net
        if self.values == "categorical":
            return net.make(shape, self.channels, self.levels, self.classes)
        return net.make(shape, 1, likelihood.mixture_outputs(self.channels, self.mixtures), self.classes)

    def _init(self, key: Key, x: Array, label: Array | None) -> Variables:
        one = None if label is None else jnp.zeros(1, jnp.int32)
        return Variables(self._network(x.shape[1:]).init(key, jnp.zeros((1, *x.shape[1:])), one)["params"])

    def _bits(
        self, weights: Variables, x: Array, label: Array | None, keys: Key, *, measured: bool = False
    ) -> tuple[Array, Metrics]:
        out = self._network(x.shape[1:]).apply({"params": weights.params}, likelihood.unit(x, self.levels), label)
        if self.values == "categorical":
            log_p = likelihood.categorical(out.reshape(*x.shape, self.levels), x)
        else:
            log_p = likelihood.logistic_mixture(out, x, self.levels)
        return likelihood.bits(log_p.reshape(len(x), -1).sum(1), x[0].size), {}

    def _draw(self, weights: Variables, numbers: Any, keys: Key, label: Array | None, shape: tuple[int, ...]) -> Array:
        net: Any = self.net
        temperature = numbers["temperature"]

        def pick(key: Key, out: Array) -> Array:
            if self.values == "categorical":
                level = likelihood.draw_categorical(key, out, temperature)
            else:
                level = likelihood.draw_logistic_mixture(key, out, shape[-1], self.levels, temperature)
            return likelihood.unit(level, self.levels)

        x = net.sample(self._network(shape), weights.params, keys, label, shape, pick)
        return jnp.round((x + 1) * ((self.levels - 1) / 2)).astype(jnp.int32)
