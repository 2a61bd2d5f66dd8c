"""A later stage of a cascade: diffusion of a large picture beside the small one, enlarged and joined to the input.

The pictures of the stage before are never quite those of the data, so training spoils the small picture z:

    z -> blur(z, deviation)                       of some examples
    z -> alpha(s) z + sigma(s) eps,  s uniform    the network is conditioned on the level s

and sampling chooses s. The noise is added before z is enlarged or after it. Added before, z is what the walk of the
stage before passes through, so that it may also end there (`truncate` of `pipelines.cascade`): both are trained alike.

Levels are those of DeepFloyd IF: s = 0 .. 999 of 1000 steps of the cosine schedule, and a run is sampled as its later
stages are.

Sources: Ho et al. 2021, arXiv 2106.15282, section 3 (blur; truncated and non-truncated conditioning augmentation);
Saharia et al. 2022, arXiv 2205.11487, section 2.3 (the level is a condition, chosen when sampling).
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.data.source import DataConfig, Source
from jaxdiff.diffusion import draws
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pipelines import first_stage
from jaxdiff.pipelines.program import stretched
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.read import Bundle
from jaxdiff.tasks import described, picture, saved
from jaxdiff.training import OptimizerConfig, Variables
from jaxdiff.typing import Batch, Cond, Key, Params

LEVELS = 1000
NOISING = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": LEVELS}
"""The levels of noise on the small picture, as a scheduler_config.json."""
_LEVEL, _EPS, _BLUR, _BLURRED = range(4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(picture.Config):
    """Diffusion of a large picture from a small one.

    Attributes:
      low: side of the small picture, a divisor of data.size.
      levels: levels of noise on the small picture that training draws from, the lowest of 1000; 0: it has no noise,
        and the network has no such condition.
      level: level that sampling adds where none is chosen; below `levels`.
      noise: whether noise is added to the small picture, or to it once enlarged.
      blur: least and greatest deviation of the Gaussian that blurs the small picture, in its pixels; 0 0: no blur.
      blurred: probability that a picture is blurred.
      before: run whose pictures it enlarges, which `jaxdiff sample` then runs first.
    """

    net: UNetConfig = UNetConfig(augment=True, pooled=True)
    low: int = 16
    levels: int = 1000
    level: int = 100
    noise: Literal["small", "enlarged"] = "small"
    blur: tuple[float, float] = (0.0, 0.0)
    blurred: float = 0.5
    before: Path | None = None

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        if not 1 <= self.low < data.size or data.size % self.low:
            raise ValueError(f"task.low is {self.low}: expected a side that divides data.size {data.size}, below it")
        if not 0 <= self.levels <= LEVELS:
            raise ValueError(f"task.levels is {self.levels}: expected 0 to {LEVELS}")
        if self.levels and not 0 <= self.level < self.levels:
            raise ValueError(f"task.level is {self.level}: expected 0 to {self.levels - 1}, below task.levels")
        if self.net.augment != bool(self.levels):
            raise ValueError(
                f"task.net.augment is {self.net.augment} and task.levels {self.levels}: the network embeds the level "
                "where there is noise, and only there"
            )
        if not 0 <= self.blur[0] <= self.blur[1] < math.inf:
            raise ValueError(
                f"task.blur is {self.blur}: expected two numbers from 0 up, the second not below the first"
            )
        if not 0 <= self.blurred <= 1:
            raise ValueError(f"task.blurred is {self.blurred}: expected 0 to 1")
        if self.before is not None and (saved.folder_of(self.before) / "config.json").is_file():
            of = saved.read_config(self.before)[1]
            if of.size != self.low:
                raise ValueError(
                    f"task.before is {self.before}, whose pictures have sides of {of.size}, and task.low is "
                    f"{self.low}: expected the same"
                )

    def follows(self, image: bool = False) -> Path | None:
        """Returns the run whose pictures are enlarged, where none is given."""
        return None if image else self.before

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Any:
        """Reads vocabulary.json or labels.txt of a run, or makes it; previews enlarge pictures of the data."""
        assets = super().assets(folder, data, source, new=new)
        if source is None or not self.preview.prompts:
            return assets
        images = described.images(source, self.condition, assets.labels, self.preview.prompts)
        return assets._replace(shown=np.asarray(self._small(np.stack(images))))

    def _small(self, image: Any) -> Any:
        """Returns uint8 [b low low 3] of uint8 [b h w 3]: each pixel the mean of those that it stands for."""
        return jnp.round(first_stage.reduced(jnp.asarray(image), image.shape[1] // self.low)).astype(jnp.uint8)

    def _drawn(self, assets: Any, frozen: Params, batch: Batch, keys: Key) -> Batch:
        small = self._small(batch["image"]).astype(jnp.float32) / 127.5 - 1
        own = draws.fold(keys, draws.AUGMENT)
        if self.blur[1]:
            at = draws.uniform(draws.fold(own, _BLUR)) * (self.blur[1] - self.blur[0]) + self.blur[0]
            some = draws.uniform(draws.fold(own, _BLURRED)) < self.blurred
            small = blurred(small, jnp.where(some, at, 0), math.ceil(3 * self.blur[1]))
        enlarge = lambda x: stretched(x, *batch["image"].shape[1:3])
        if not self.levels:
            return {**batch, "joined": enlarge(small)}
        level = jnp.floor(draws.uniform(draws.fold(own, _LEVEL)) * self.levels)
        x = small if self.noise == "small" else enlarge(small)
        x = noised(x, level, draws.noise_like(draws.fold(own, _EPS), x))
        return {**batch, "joined": enlarge(x) if self.noise == "small" else x, "level": level}

    def _cond(self, assets: Any, params: Params, frozen: Params, batch: Batch) -> Cond:
        cond = super()._cond(assets, params, frozen, batch)
        return dataclasses.replace(cond, image=batch["joined"], augment=batch.get("level"))

    def bundle(self, assets: Any, weights: Variables) -> Bundle:
        """Returns the U-Net, the text encoder, the process and the levels of noise, as later stages have them."""
        bundle = super().bundle(assets, weights)
        index: dict[str, Any] = {"low": self.low}
        if not self.levels:
            return dataclasses.replace(bundle, index={**index, "picture": "low_resolution"})
        index |= {"max_noise_level": self.levels - 1, "noise_level": self.level, "noise": self.noise}
        return dataclasses.replace(bundle, index=index, schedulers={"image_noising_scheduler": NOISING})

    def _preview_inputs(self, assets: Any) -> dict[str, Any]:
        return {"image": assets.shown}


def noised(
    x: Float[Array, "b i j c"], level: Float[Array, " b"], eps: Float[Array, "b i j c"]
) -> Float[Array, "b i j c"]:
    """Returns alpha x + sigma eps: pictures at levels from 0 to 999, which are steps 1 to 1000 of `NOISING`."""
    schedule = scheduler.process(NOISING).schedule
    t = (level + 1) / LEVELS
    return over_pixels(schedule.alpha(t), x) * x + over_pixels(schedule.sigma(t), x) * eps


def blurred(x: Float[Array, "b i j c"], deviation: Float[Array, " b"], radius: int) -> Float[Array, "b i j c"]:
    """Blurs each picture by a Gaussian of its own deviation, in pixels, cut off after `radius`; 0 leaves it as it is.

    Beyond the border is the border.
    """
    at = jnp.arange(-radius, radius + 1, dtype=jnp.float32)[None]
    weights = jnp.exp(-0.5 * (at / jnp.maximum(deviation, 1e-6)[:, None]) ** 2)
    weights /= weights.sum(1, keepdims=True)
    for axis in (1, 2):
        wide = jnp.pad(x, [(radius, radius) if i == axis else (0, 0) for i in range(x.ndim)], mode="edge")
        shifted = [jax.lax.slice_in_dim(wide, n, n + x.shape[axis], axis=axis) for n in range(2 * radius + 1)]
        x = jnp.einsum("bn,nbijc->bijc", weights, jnp.stack(shifted))
    return x
