"""Editing by instructions: a model of others learns to make of a picture what a caption asks for.

The U-Net takes the latents of the picture before beside its own: its first convolution gets as many inputs more, whose
weights start at zero. Captions, pictures, and both are left out of some examples, so that it can be guided by each. The
pictures before are the hints of `tasks.hinted`, in files; a caption says what is changed, and the picture of the data
is the result.

Source: Brooks et al. 2023, arXiv 2211.09800, section 3.2.
"""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.data.source import DataConfig
from jaxdiff.pipelines import first_stage
from jaxdiff.tasks import finetune, hinted
from jaxdiff.tasks.hinted import HintedConfig
from jaxdiff.tasks.published import Assets
from jaxdiff.training import OptimizerConfig
from jaxdiff.typing import Batch, Cond, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(HintedConfig, finetune.Config):
    """Editing by instructions.

    Attributes:
      drop: how often the caption alone, the picture alone, and both are left out, each.
      hint: pictures before, in files.
    """

    hint: Literal["files"] = "files"
    drop: float = 0.05

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if not 0 <= self.drop <= 1 / 3:
            raise ValueError(f"task.drop is {self.drop}, three times of which are left out: expected 0 to 1/3")
        super().check(data, optimizer)

    def _takes(self) -> str:
        return "edited"

    def _gone(self, keys: Key) -> Array:
        return hinted.three_ways(keys, self.drop)[0]

    def _cond(self, assets: Assets, params: Params, batch: Batch) -> Cond:
        cond = super()._cond(assets, params, batch)
        vae = assets.base.bundle.components["vae"]
        moments = first_stage.moments(vae, params["vae"], batch["hint"])
        seen = moments[..., : assets.base.model.channels].astype(jnp.float32)
        gone = hinted.three_ways(batch["keys"], self.drop)[1]
        return dataclasses.replace(cond, image=jnp.where(gone[:, None, None, None], 0.0, seen))

    def _preview_inputs(self, assets: Assets) -> dict[str, Any]:
        return {"image": assets.more.shown}
