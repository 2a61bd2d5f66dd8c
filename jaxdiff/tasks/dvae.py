"""A discrete VAE, DALL-E's first stage: images to codes and back, trained on the bound of `objectives.discrete`.

    loss = -(log p(x | z) - kl_weight(step) KL) / values of an image,    z relaxed at temperature(step)

Both numbers follow half a cosine: the temperature falls to 1/16, the weight of the KL rises from 0. Measured on
held-out images are the bound (codes drawn, the KL counted once), and reconstructions by the likeliest codes.

Source: Ramesh et al. 2021, arXiv 2102.12092, section 2.1 and appendix A.2.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig, Source
from jaxdiff.models.autoencoder_dvae import DVAEConfig
from jaxdiff.models.config import NetConfig
from jaxdiff.objectives import codebook, discrete, likelihood, likeness
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.autoencoder import AutoencoderPipeline
from jaxdiff.pipelines.program import to_pixels
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import dvae as rules
from jaxdiff.tasks.first_stage import Assets, example, images_of, reconstructions
from jaxdiff.tasks.first_stage_loss import to_unit
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Task, Variables
from jaxdiff.typing import Batch, Key, Metrics, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """A discrete VAE.

    Attributes:
      net: the network, an autoencoder_dvae.
      temperature: temperature of the relaxed codes at first.
      temperature_end: temperature at the end.
      temperature_steps: steps that the temperature falls for.
      kl: weight of the KL divergence at the end; 1 is that of the bound.
      kl_steps: steps that the weight rises for, from 0.
      log_scale: least ln b of a pixel's distribution. With a small one, flat backgrounds outweigh all else.
      previews: images of the data that the run shows beside their reconstructions.
    """

    net: NetConfig = DVAEConfig()
    temperature: float = 1.0
    temperature_end: float = 1 / 16
    temperature_steps: int = 150_000
    kl: float = 6.6
    kl_steps: int = 5000
    log_scale: float = -5.0
    previews: int = 8

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        if not isinstance(self.net, DVAEConfig):
            raise ValueError(f"task.net is a {type(self.net).__name__}: expected autoencoder_dvae")
        self.net.check(data.size, data.size)
        if not 0 < self.temperature_end <= self.temperature <= 10:
            raise ValueError(
                f"task.temperature is {self.temperature} and task.temperature_end {self.temperature_end}: expected "
                "numbers above 0 and at most 10, the latter not above the former"
            )
        if not 0 <= self.kl < math.inf:
            raise ValueError(f"task.kl is {self.kl}: expected a number of at least 0")
        if not -10 <= self.log_scale <= 2:
            raise ValueError(f"task.log_scale is {self.log_scale}: expected a number from -10 to 2")
        for name, least in (("temperature_steps", 1), ("kl_steps", 1), ("previews", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"task.{name} is {getattr(self, name)}: expected {least} or more")

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Takes the images for previews from the data."""
        return images_of(self.previews, data, source)

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the autoencoder."""
        part = lambda weights: self.bundle(assets, weights).components["dvae"]
        return Task(
            init=self._init,
            loss=self._loss,
            held_out=self._held_out,
            summary=_summary,
            example=example,
            previews={"reconstructions": reconstructions(part, assets, spec)} if len(assets.images) else {},
        )

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> AutoencoderPipeline:
        """Returns what reconstructs pictures, and decodes uniform codes."""
        return AutoencoderPipeline(self.bundle(assets, weights).components["dvae"], assets.size, spec)

    def bundle(self, assets: Assets, weights: Variables) -> Bundle:
        """Returns the autoencoder as the component `dvae`."""
        net: Any = self.net
        part = Component(rules.KIND, rules.published(net), net, weights.params)
        return Bundle("jaxdiff", {}, {"dvae": part}, {}, {})

    def _init(self, key: Key, loaded: Params, batch: Batch) -> Variables:
        return Variables(self.net.build().init(key, jnp.zeros((1, *batch["image"].shape[1:])))["params"])

    def _apply(self, params: Params, method: str, *args: Any) -> Any:
        return self.net.build().apply({"params": params}, *args, method=method)

    def _terms(self, params: Params, image: Array, logits: Array, z: Array) -> tuple[Array, Array]:
        """Returns log p(x | z) and the KL of each image in nats."""
        m, log_b = self._apply(params, "pixels", z)
        log_p = discrete.logit_laplace(m, log_b, discrete.inside(to_unit(image)), self.log_scale)
        return log_p.sum((1, 2, 3)), discrete.kl_to_uniform(logits).sum((1, 2))

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        image, dims = batch["image"], batch["image"][0].size
        logits = self._apply(params, "encode", to_unit(image))
        temperature = discrete.annealed(known.step, self.temperature, self.temperature_end, self.temperature_steps)
        z = jax.nn.softmax(discrete.perturbed(logits, keys) / temperature)
        log_p, kl = self._terms(params, image, logits, z)
        weight = discrete.annealed(known.step, 0.0, self.kl, self.kl_steps)
        metrics = {"log_p": log_p.mean() / dims, "kl": kl.mean() / logits[0, ..., 0].size}
        return (weight * kl - log_p).mean() / dims, {**metrics, "temperature": temperature, "kl_weight": weight}, {}

    def _held_out(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        image = batch["image"]
        logits = self._apply(params, "encode", to_unit(image))
        log_p, kl = self._terms(params, image, logits, discrete.one_hot(discrete.perturbed(logits, keys)))
        pixels = to_pixels(self._apply(params, "decode", logits))
        chosen = discrete.one_hot(logits).sum((1, 2)).mean(0)
        metrics = {"kl": kl.mean() / logits[0, ..., 0].size, "psnr": likeness.psnr(image, pixels).mean()}
        return likelihood.bits(log_p - kl, image[0].size).mean(), metrics, {"chosen": chosen}


def _summary(stats: Any) -> Mapping[str, float]:
    """Returns the part of the codes that held-out images use at all, and the perplexity of how often each is."""
    chosen = np.asarray(stats["chosen"])
    return {"usage": float((chosen > 0).mean()), "perplexity": float(codebook.usage(jnp.asarray(chosen))[1])}
