"""Filling a part of a picture: a model of others learns to make what a mask leaves out.

The U-Net takes the mask and the latents of the masked picture beside its own: its first convolution gets as many inputs
more, whose weights start at zero. Masks are drawn (`data.masks`): boxes and ellipses, or all of the picture.

Source: Rombach et al. 2022, arXiv 2112.10752, section 4.5.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdiff.data import masks
from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.models import autoencoder_kl
from jaxdiff.pipelines import first_stage
from jaxdiff.tasks import finetune, hinted
from jaxdiff.tasks.published import Assets
from jaxdiff.training import OptimizerConfig
from jaxdiff.typing import Batch, Cond, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(finetune.Config):
    """Inpainting.

    Attributes:
      whole: how often the mask is all of the picture.
    """

    whole: float = 0.25

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if not 0 <= self.whole <= 1:
            raise ValueError(f"task.whole is {self.whole}: expected at least 0 and at most 1")
        hinted.check_alone(self)
        super().check(data, optimizer)

    def _takes(self) -> str:
        return "masked"

    def _prepare(self, assets: Assets, folder: Path, data: DataConfig, source: Source | None, new: bool) -> Assets:
        if source is None:
            return assets
        hinted.refuse_latents(source, data)
        return assets._replace(more=[source[i % len(source)]["image"] for i in range(len(self.preview.prompts))])

    def _row(self, assets: Assets, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        row = super()._row(assets, one, rng)
        return {**row, "mask": masks.draw(rng, *one["image"].shape[:2], whole=self.whole)}

    def _cond(self, assets: Assets, params: Params, batch: Batch) -> Cond:
        cond = super()._cond(assets, params, batch)
        part, step = assets.base.bundle.components["vae"], assets.base.model.factor
        mask = batch["mask"].astype(jnp.float32)
        seen = batch["image"].astype(jnp.float32) * (1 - mask) + 127.5 * mask
        mean = first_stage.moments(part, params["vae"], seen)[..., : assets.base.model.channels]
        latents = autoencoder_kl.scaled(part.config, mean.astype(jnp.float32))
        return dataclasses.replace(cond, image=jnp.concatenate([mask[:, ::step, ::step], latents], -1))

    def _preview_inputs(self, assets: Assets) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        drawn = [masks.draw(rng, *image.shape[:2], whole=0.0) for image in assets.more]
        return {"image": np.stack(assets.more), "mask": np.stack(drawn).astype(np.float32)}
