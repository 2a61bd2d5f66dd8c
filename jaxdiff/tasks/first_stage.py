"""Autoencoders: images to latents and back, with a Gaussian or a codebook between; `first_stage_loss` has the loss.

The deviation of the latents is measured while it trains, as a moving average in `extra`; the scale of the autoencoder
that `bundle` gives is its inverse, so that a second stage sees latents of unit variance.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.models.config import NetConfig
from jaxdiff.objectives import codebook
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.autoencoder import AutoencoderPipeline
from jaxdiff.pipelines.pipeline import once
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import autoencoder as rules
from jaxdiff.tasks.first_stage_loss import LossConfig, to_unit, weights_of
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import OptimizerConfig, Preview, Task, Variables
from jaxdiff.training import optimizer as optimizers
from jaxdiff.training.task import nothing
from jaxdiff.typing import Batch, Key, Params


class Assets(NamedTuple):
    """Holds what a run is beside its numbers and weights.

    Attributes:
      size: side of the images.
      images: uint8 [n h w 3] of its data, which it shows.
      trains: whether it is trained, and not only read: then it needs the classifiers that look at images.
    """

    size: int
    images: np.ndarray
    trains: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """An autoencoder.

    Attributes:
      net: the autoencoder, with a Gaussian (autoencoder_kl) or a codebook (autoencoder_vq).
      loss: what it is trained on.
      critic_optimizer: optimizer of the critic's parameters.
      previews: images of the data that the run shows beside their reconstructions.
    """

    net: NetConfig = AutoencoderConfig()
    loss: LossConfig = LossConfig()
    critic_optimizer: OptimizerConfig = OptimizerConfig(name="adam", lr=4.5e-6, b1=0.5, b2=0.9)
    previews: int = 8

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        if not isinstance(self.net, AutoencoderConfig):
            raise ValueError(f"task.net is a {type(self.net).__name__}: expected autoencoder_kl or autoencoder_vq")
        self.net.check(data.size, data.size)
        if self.net.in_channels != 3 or self.net.out_channels != 3:
            raise ValueError(
                f"task.net reads {self.net.in_channels} channels and makes {self.net.out_channels}: images have 3"
            )
        for name in ("scale", "shift"):
            if getattr(self.net, name) != getattr(AutoencoderConfig, name):
                raise ValueError(
                    f"task.net.{name} is {getattr(self.net, name)}: leave it out, the scale is measured in training"
                )
        self.loss.check(self.net, data.size)
        if self.previews < 0:
            raise ValueError(f"task.previews is {self.previews}: expected 0 or more")

    def check_steps(self, steps: int) -> None:
        """Refuses a run that ends before its critic starts."""
        if self.loss.adversarial == "none":
            return
        if self.loss.adversarial_start >= steps:
            raise ValueError(
                f"task.loss.adversarial_start is {self.loss.adversarial_start} and train.steps {steps}: the critic "
                "would never count; start it earlier, or choose --task.loss.adversarial none"
            )
        optimizers.check(self.critic_optimizer, steps, " of group critic")

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Takes the images for previews from the data."""
        return images_of(self.previews, data, source)

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the autoencoder, and of its critic."""
        net: Any = self.net

        def load(place: Any) -> Params:
            loaded = self.loss.load()
            return jax.device_put(loaded, place(loaded))

        part = lambda weights: self.bundle(assets, weights).components["vae"]
        return Task(
            init=self._init,
            loss=lambda *args: self.loss.loss(net, *args),
            held_out=lambda *args: self.loss.held_out(net, *args),
            summary=self.loss.summary,
            example=example,
            load=load if assets.trains else nothing,
            absorb=self.loss.absorb,
            groups=((r"critic/.*", self.critic_optimizer),) if self.loss.adversarial != "none" else (),
            averaged=("generator",),
            previews={"reconstructions": reconstructions(part, assets, spec)} if len(assets.images) else {},
        )

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> AutoencoderPipeline:
        """Returns what reconstructs pictures."""
        return AutoencoderPipeline(self.bundle(assets, weights).components["vae"], assets.size, spec)

    def bundle(self, assets: Assets, weights: Variables) -> Bundle:
        """Returns the autoencoder as the component `vae`, with the scale of its latents as it was measured."""
        own: Any = self.net
        net = dataclasses.replace(own, scale=scale(weights.extra))
        kind = "VQModel" if isinstance(net, VQConfig) else "AutoencoderKL"
        part = Component(kind, rules.published(net), net, weights_of(weights.params["generator"], weights.extra))
        return Bundle("jaxdiff", {}, {"vae": part}, {}, {})

    def _init(self, key: Key, loaded: Params, batch: Batch) -> Variables:
        own, other, codes = jax.random.split(key, 3)
        x = jnp.zeros((1, *batch["image"].shape[1:]))
        net: Any = self.net
        generator = dict(net.build().init(own, x)["params"])
        extra = self.loss.init_extra(net)
        if isinstance(net, VQConfig):
            z: Any = net.build().apply({"params": generator}, to_unit(batch["image"]), method="encode")
            first = jax.random.choice(codes, z.reshape(-1, net.width), (net.codes,))
            moved = self.loss.codebook == "ema"
            extra["codebook"] = codebook.start(first if moved else jnp.zeros_like(first))
            del generator["codebook"]
            generator |= {} if moved else {"codebook": first}
        params: dict[str, Any] = {"generator": generator}
        if self.loss.adversarial != "none":
            params["critic"] = self.loss.critic.build().init(other, x)["params"]
        return Variables(params, dict(loaded), extra)


def reconstructions(read: Callable[[Variables], Component], assets: Assets, spec: Spec) -> Any:
    """Returns the preview of the autoencoder that `read` makes of a run's weights: images beside reconstructions."""
    pipeline_of = once(lambda part: AutoencoderPipeline(part, assets.size, spec))

    def preview(weights: Variables, key: Key) -> Preview:
        part = read(weights)
        pipe = pipeline_of(part)
        pipe.part = dataclasses.replace(pipe.part, params=part.params)
        pairs = np.concatenate([assets.images, pipe.reconstruct(assets.images)], 2)
        return Preview(pairs, ("original, reconstruction",) * len(pairs))

    return preview


def images_of(count: int, data: DataConfig, source: Source | None) -> Assets:
    """Returns the assets of a run that shows the first `count` images of its data."""
    shown = [source[i]["image"] for i in range(min(count, len(source)))] if source is not None else []
    images = np.stack(shown) if shown else np.zeros((0, data.size, data.size, 3), np.uint8)
    return Assets(data.size, images, source is not None)


def scale(extra: Any) -> float:
    """Returns 1 / the standard deviation of the latents over the last steps; 1 before the first."""
    total, first, second = (float(x) for x in np.asarray(extra["latents"], np.float64))
    variance = second / total - (first / total) ** 2 if total else 1.0
    return float(1 / np.sqrt(variance)) if variance > 0 else 1.0


def example(one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the row of a batch that an example is."""
    return {"image": one["image"]}
