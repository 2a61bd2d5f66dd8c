"""A T2I-adapter for a model of others: a small network turns a hint into features that the U-Net adds on its way down.

It starts by chance, and `tasks.hinted` has its hints.

Source: Mou et al. 2023, arXiv 2302.08453, section 3.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdiff.models.adapter import Adapter
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.hinted import HintedConfig
from jaxdiff.tasks.published import Assets
from jaxdiff.training import Variables
from jaxdiff.typing import Batch, Cond, Key, Params

KIND = "T2IAdapter"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(HintedConfig):
    """A T2I-adapter.

    Attributes:
      layers: residual blocks for each feature.
    """

    layers: int = 2

    def _outline(self) -> Base:
        """Returns the base, with an adapter of its U-Net's widths."""
        base = super()._outline()
        if not 1 <= self.layers <= 100:
            raise ValueError(f"task.layers is {self.layers}: expected 1 to 100")
        widths, factor = [*base.model.nets["unet"].channels], base.model.factor
        json = {"_class_name": KIND, "in_channels": 3, "num_res_blocks": self.layers}
        if base.model.sizes and len(widths) != 3:
            raise ValueError(
                f"{base.path} has a U-Net of {len(widths)} levels: an adapter of SDXL halves once, before its third "
                "feature, for one of 3"
            )
        if base.model.sizes:  # the features of SDXL lie behind its first halving
            json |= {
                "adapter_type": "full_adapter_xl",
                "channels": [*widths, widths[-1]],
                "downscale_factor": 2 * factor,
            }
        else:
            json |= {"adapter_type": "full_adapter", "channels": widths, "downscale_factor": factor}
        net = dataclasses.replace(family(KIND).config(json), dtype=self.dtype)
        part = Component(KIND, json, net, family(KIND).shapes(net, json))
        bundle = dataclasses.replace(base.bundle, components={**base.bundle.components, "adapter": part})
        nets, kinds = {**base.model.nets, "adapter": net}, {**base.model.kinds, "adapter": KIND}
        return base._replace(bundle=bundle, model=dataclasses.replace(base.model, nets=nets, kinds=kinds))

    def _cond(self, assets: Assets, params: Params, batch: Batch) -> Cond:
        cond = super()._cond(assets, params, batch)
        hint = batch["hint"].astype(jnp.float32) / 255
        features: Any = Adapter(assets.base.model.nets["adapter"]).apply({"params": params["adapter"]}, hint)
        return dataclasses.replace(cond, features=features)

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        net = assets.base.model.nets["adapter"]
        params = Adapter(net).init(key, jnp.zeros((1, net.unit, net.unit, net.in_channels)))["params"]
        return {"adapter": params}, dict(loaded)

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        return {**frozen, **params}

    def apart(self, assets: Assets, weights: Variables, out: Path, layout: str) -> Callable[[Path], None]:
        """Returns what writes the adapter as a directory, as diffusers has it."""
        if out.suffix:
            raise ValueError(f"out is {out}: this run is a T2I-adapter, for a new directory")
        part = dataclasses.replace(assets.base.bundle.components["adapter"], params=weights.params["adapter"])
        return lambda to: write_component(part, to)
