"""A model of others trained on: its U-Net, or parts of it, and its text encoders where their paths are named.

The trained parameters are those at the paths of `train`; `groups` gives some of them other rates:

    finetune.Config(train=("unet/.*", "text_encoder/.*"), groups=(("text_encoder/.*", OptimizerConfig(lr=1e-6)),))
"""

import dataclasses
from typing import Any

from jaxdiff.data.source import DataConfig
from jaxdiff.tasks import base_model
from jaxdiff.tasks.published import Assets, PublishedConfig
from jaxdiff.training import OptimizerConfig
from jaxdiff.typing import Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PublishedConfig):
    """Fine-tuning.

    Attributes:
      train: patterns of the paths of what is trained, 'unet/down_0/attn_0/proj_in/kernel'; all else is frozen.
    """

    train: tuple[str, ...] = ("unet/.*",)

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other, and patterns that match nothing."""
        super().check(data, optimizer)
        if not self.train:
            raise ValueError("task.train is empty: name the paths of what is trained, such as 'unet/.*'")
        base_model.trainable(self._outline(), self.train, "task.train")

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        return base_model.split(loaded, base_model.trainable(assets.base, self.train, "task.train"))

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        return base_model.join(params, frozen)
