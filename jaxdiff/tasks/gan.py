"""Generative adversarial networks: a generator and a critic, terms of one loss, each moved by an optimizer of its own.

The run's own optimizer moves the generator: with `optimizer.every` 5 it takes one step in five of the critic's. The
vectors of spectral norms are `extra`, and follow the critic; the average of the generator's weights is sampled.

Semi-supervised, the critic tells K classes and a K+1st, fake; it knows the class of a part of the pictures.
"""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig, Example
from jaxdiff.models.config import NetConfig
from jaxdiff.models.critic import Critic, CriticConfig
from jaxdiff.models.generator import Generator, GeneratorConfig
from jaxdiff.objectives import adversarial, likelihood
from jaxdiff.objectives.adversarial import Kind
from jaxdiff.pipelines.direct import Tempered
from jaxdiff.tasks.family import FamilyConfig
from jaxdiff.training import Known, OptimizerConfig, Variables
from jaxdiff.training import optimizer as optimizers
from jaxdiff.typing import Batch, Key, Metrics, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(FamilyConfig):
    """A GAN.

    Attributes:
      net: the generator.
      critic: its network.
      game: what both sides play.
      penalty: weight of the gradient penalty between real and made pictures; 10 in the paper of Wasserstein's.
      r1: weight of the gradient penalty at real pictures.
      labelled: part of the pictures whose class the critic learns; the generator is then conditioned on none.
      slopes: whether the length of the gradient that the generator gets is measured.
      critic_optimizer: optimizer of the critic's parameters.
    """

    net: NetConfig = GeneratorConfig()
    critic: NetConfig = CriticConfig()
    game: Kind = "hinge"
    penalty: float = 0.0
    r1: float = 0.0
    labelled: float = 0.0
    slopes: bool = False
    critic_optimizer: OptimizerConfig = OptimizerConfig(name="adam", lr=2e-4, b1=0.0, b2=0.9, decay="constant")

    likelihood = ""
    options = Tempered

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        for name, kind in (("net", GeneratorConfig), ("critic", CriticConfig)):
            net = getattr(self, name)
            if not isinstance(net, kind):
                raise ValueError(f"task.{name} is a {type(net).__name__}: expected {kind.__module__.rsplit('.')[-1]}")
            net.check(data.size, data.size)
        for name in ("penalty", "r1"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise ValueError(f"task.{name} is {value}: expected a number of at least 0")
        if not 0 <= self.labelled <= 1 or (self.labelled and not self.classes):
            raise ValueError(f"task.labelled is {self.labelled}: expected 0 to 1, and task.classes above 0")
        if self.labelled and self.game in ("hinge", "wasserstein"):
            raise ValueError(f"task.game is {self.game!r}: with task.labelled it is minimax or non_saturating")
        bounded = self.penalty or getattr(self.critic, "spectral", True)
        if self.game == "wasserstein" and not bounded:
            raise ValueError(
                "task.game is 'wasserstein', whose critic must be held to slopes of 1: give task.penalty, or "
                "task.critic.spectral True"
            )
        if self.critic_optimizer.every > optimizer.every:
            raise ValueError(
                f"task.critic_optimizer.every is {self.critic_optimizer.every} and optimizer.every {optimizer.every}: "
                "the generator would move more often than its critic"
            )

    def check_steps(self, steps: int) -> None:
        """Refuses an optimizer of the critic that makes no sense."""
        optimizers.check(self.critic_optimizer, steps, " of group critic")

    @property
    def conditional_classes(self) -> int:
        """Returns how many classes the generator is conditioned on."""
        return 0 if self.labelled else self.classes

    def _row(self, one: Example) -> dict[str, np.ndarray]:
        labelled = zlib.crc32(one["image"].tobytes()) < self.labelled * 2**32  # of a picture always the same
        return {**super()._row(one), **({"labelled": np.asarray(labelled)} if self.labelled else {})}

    def _more(self, assets: Any) -> dict[str, Any]:
        return {
            "groups": ((r"critic/.*", self.critic_optimizer),),
            "averaged": ("generator",),
            "absorb": lambda extra, stats: stats,
        }

    def _networks(self, shape: tuple[int, ...]) -> tuple[Any, Any]:
        net: Any = self.net
        critic: Any = self.critic
        known = self.classes if self.labelled else 0
        return Generator(net, shape, self.conditional_classes), Critic(critic, self.conditional_classes, known)

    def _init(self, key: Key, x: Array, label: Array | None) -> Variables:
        own, other = jax.random.split(key)
        net: Any = self.net
        generator, critic = self._networks(x.shape[1:])
        label = label[:1] if label is not None and self.conditional_classes else None
        critic_params = dict(critic.init(other, jnp.zeros((1, *x.shape[1:])), label))
        drawn: Any = generator.init(own, jnp.zeros((1, net.noise)), label)
        params = {"generator": drawn["params"], "critic": critic_params["params"]}
        return Variables(params, extra={"spectral": critic_params.get("spectral", {})})

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        net: Any = self.net
        x, classes = likelihood.unit(self.read(batch["image"]), self.levels), batch.get("label")
        label = classes if self.conditional_classes else None
        generator, critic = self._networks(x.shape[1:])
        noise, at = (jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys) for i in range(2))
        z = jax.vmap(lambda key: jax.random.normal(key, (net.noise,)))(noise)
        u = known.extra["spectral"]

        def judge(params: Params, x: Array) -> tuple[Array, Any]:
            logits, moved = critic.apply({"params": params, "spectral": u}, x, label, mutable=["spectral"])
            real = jax.nn.logsumexp(logits, -1) if self.labelled else logits
            return real, (moved.get("spectral", u), logits)

        y = generator.apply({"params": params["generator"]}, z, label)
        how = (jax.vmap(jax.random.uniform)(at), self.game, self.penalty, self.r1, self.slopes)
        loss, metrics, (u, logits) = adversarial.both_sides(judge, params["critic"], x, y, *how)
        if self.labelled:
            # over the labelled part: the sum of both losses in the paper
            loss_of_class = adversarial.class_loss(logits, jnp.asarray(classes), batch["labelled"]) / self.labelled
            right = (logits.argmax(-1) == classes).mean()
            loss, metrics = loss + loss_of_class, {**metrics, "class": loss_of_class, "class_right": right}
        return loss, metrics, {"spectral": jax.lax.stop_gradient(u)}

    def _draw(self, weights: Variables, numbers: Any, keys: Key, label: Array | None, shape: tuple[int, ...]) -> Array:
        net: Any = self.net
        z = numbers["temperature"] * jax.vmap(lambda key: jax.random.normal(key, (net.noise,)))(keys)
        y = self._networks(shape)[0].apply({"params": weights.params["generator"]}, z, label)
        return jnp.clip(jnp.round((y + 1) * ((self.levels - 1) / 2)), 0, self.levels - 1).astype(jnp.int32)
