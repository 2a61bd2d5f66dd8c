"""Variational autoencoders that generate: a decoder that gives a distribution of pictures, and a Gaussian prior.

With weights w = p(x | z) p(z) / q(z | x) at z drawn from the encoder's q(z | x), log p(x) is at least

    E log (w_1 + .. + w_k) / k,

tighter the more draws there are (k = 1: E log p(x | z) - KL(q | p)). beta counts the divergence more or less; with a
capacity C it is |KL - C| that counts, C growing over the run. What is drawn is the mean that the decoder gives.

Sources: Kingma and Welling 2014, arXiv 1312.6114; Burda et al. 2016, arXiv 1509.00519, equation 8; Higgins et al. 2017
(beta-VAE), ICLR; Burgess et al. 2018, arXiv 1804.03599, equation 8 (capacity).
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.models.config import NetConfig
from jaxdiff.objectives import autoencoding, likelihood
from jaxdiff.pipelines.direct import Tempered
from jaxdiff.tasks import traversal
from jaxdiff.tasks.family import FamilyConfig
from jaxdiff.tasks.task import Spec
from jaxdiff.training import Known, OptimizerConfig, Variables
from jaxdiff.typing import Batch, Key, Metrics, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(FamilyConfig):
    """A variational autoencoder.

    Attributes:
      net: the autoencoder; it makes a number a value for bernoulli, and two, mean and log-scale, for the others.
      values: the distribution of a value that the decoder gives; bernoulli is of two levels.
      draws: k in training.
      measured_draws: k where a model is measured.
      beta: weight of the divergence.
      capacity: C at its end, in nats; 0 is no capacity.
      capacity_steps: in which it gets there.
    """

    net: NetConfig = AutoencoderConfig(out_channels=6)
    values: Literal["bernoulli", "logistic", "gaussian"] = "logistic"
    draws: int = 1
    measured_draws: int = 16
    beta: float = 1.0
    capacity: float = 0.0
    capacity_steps: int = 10_000

    likelihood = "bound"
    options = Tempered

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        net: Any = self.net
        if not isinstance(net, AutoencoderConfig) or isinstance(net, VQConfig):
            raise ValueError(f"task.net is a {type(net).__name__}: expected autoencoder_kl")
        net.check(data.size, data.size)
        wanted = (self.channels, self.channels * (2 - (self.values == "bernoulli")))
        if (net.in_channels, net.out_channels) != wanted:
            raise ValueError(
                f"task.net reads {net.in_channels} channels and makes {net.out_channels}: expected {wanted[0]} and "
                f"{wanted[1]}, for task.values {self.values!r}"
            )
        if self.values == "bernoulli" and self.levels != 2:
            raise ValueError(f"task.values is 'bernoulli' and task.levels {self.levels}: it is of 2 levels")
        for name, low in {"draws": 1, "measured_draws": 1, "capacity_steps": 1, "beta": 0, "capacity": 0}.items():
            if not low <= (value := getattr(self, name)) < float("inf"):
                raise ValueError(f"task.{name} is {value}: expected a number of at least {low}")
        if self.draws > 1 and (self.beta != 1 or self.capacity):
            raise ValueError(f"task.draws is {self.draws}: the bound of several draws has no beta and no capacity")
        if self.classes:
            raise ValueError(f"task.classes is {self.classes}, and an autoencoder takes no class: set it to 0")

    def _init(self, key: Key, x: Array, label: Array | None) -> Variables:
        return Variables(self.net.build().init(key, jnp.zeros((1, *x.shape[1:])))["params"])

    def _apply(self, params: Params, method: str, x: Array) -> Any:
        return self.net.build().apply({"params": params}, x, method=method)

    def _log_p(self, params: Params, x: Array, z: Array) -> Array:
        """Returns log p(x | z) [b]."""
        out = self._apply(params, "decode", z)
        if self.values == "bernoulli":
            return jax.nn.log_sigmoid(jnp.where(x == 1, out, -out)).reshape(len(x), -1).sum(1)
        mean, scale = jnp.split(out, 2, -1)
        return getattr(likelihood, self.values)(mean, scale, x, self.levels).reshape(len(x), -1).sum(1)

    def encode(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Returns mean and log-variance of the latents of levels x."""
        return self._apply(params, "encode", likelihood.unit(x, self.levels))

    def bound(self, params: Params, x: Array, keys: Key, draws: int) -> Array:
        """Returns the bound of several draws in nats [b]."""
        mean, log_var = self.encode(params, x)

        def weight(_: None, i: Array) -> tuple[None, Array]:
            noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), mean.shape[1:]))(keys)
            z = mean + jnp.exp(log_var / 2) * noise
            ratio = (noise**2 + log_var - z**2).reshape(len(x), -1).sum(1) / 2
            return None, self._log_p(params, x, z) + ratio

        _, weights = jax.lax.scan(weight, None, jnp.arange(draws))
        return jax.nn.logsumexp(weights, 0) - np.log(draws)

    def _bits(
        self, weights: Variables, x: Array, label: Array | None, keys: Key, *, measured: bool = False
    ) -> tuple[Array, Metrics]:
        bound = self.bound(weights.params, x, keys, self.measured_draws if measured else self.draws)
        return likelihood.bits(bound, x[0].size), {}

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        if self.draws > 1:
            return super()._loss(params, known, batch, keys)
        x = self.read(batch["image"])
        mean, log_var = self.encode(params, x)
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
        log_p = self._log_p(params, x, mean + jnp.exp(log_var / 2) * noise)
        kl = autoencoding.gaussian_kl(mean, log_var)
        capacity = self.capacity * jnp.minimum(known.step / self.capacity_steps, 1.0)
        counted = jnp.abs(kl - capacity) if self.capacity else kl
        metrics = {"bits": likelihood.bits(log_p - kl, x[0].size).mean(), "kl": kl.mean(), "log_p": log_p.mean()}
        return likelihood.bits(log_p - self.beta * counted, x[0].size).mean(), metrics, {}

    def _draw(self, weights: Variables, numbers: Any, keys: Key, label: Array | None, shape: tuple[int, ...]) -> Array:
        z = jax.vmap(lambda key: jax.random.normal(key, self.latent(shape)))(keys)
        return self.decode(weights.params, numbers["temperature"] * z)

    def latent(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the latents of a picture's shape (h, w, c)."""
        net: Any = self.net
        return (shape[0] // net.unit, shape[1] // net.unit, net.latent_channels)

    def _previews(self, assets: Any, spec: Spec) -> dict[str, Any]:
        return {**super()._previews(assets, spec), "traversals": traversal.preview(self, assets.size)}

    def decode(self, params: Params, z: Array) -> Array:
        """Returns the levels [b h w c] nearest to the mean of latents."""
        out = self._apply(params, "decode", z)
        mean = 2 * jax.nn.sigmoid(out) - 1 if self.values == "bernoulli" else jnp.split(out, 2, -1)[0]
        return jnp.clip(jnp.round((mean + 1) * ((self.levels - 1) / 2)), 0, self.levels - 1).astype(jnp.int32)
