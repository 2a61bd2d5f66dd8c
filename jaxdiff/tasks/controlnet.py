"""A ControlNet for a model of others: it starts as a copy of the U-Net's way down, and its last layers at zero.

So the model's output is at first what it was. `tasks.hinted` has its hints.

Source: Zhang et al. 2023, arXiv 2302.05543, section 3.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.models.controlnet import controlled
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import controlnet, flatten, unflatten
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.hinted import HintedConfig
from jaxdiff.tasks.published import Assets
from jaxdiff.training import Variables
from jaxdiff.typing import Batch, Cond, Key, Network, Params

KIND = "ControlNetModel"
_OF_UNET = (
    *("in_channels", "flip_sin_to_cos", "freq_shift", "down_block_types", "only_cross_attention", "block_out_channels"),
    *("layers_per_block", "downsample_padding", "mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps"),
    *("cross_attention_dim", "transformer_layers_per_block", "attention_head_dim", "num_attention_heads"),
    *("use_linear_projection", "class_embed_type", "addition_embed_type", "addition_time_embed_dim"),
    *("num_class_embeds", "upcast_attention", "resnet_time_scale_shift", "mid_block_type"),
    "projection_class_embeddings_input_dim",
)
"""The fields of config.json that it takes from the U-Net, as the reference's `from_unet`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(HintedConfig):
    """A ControlNet.

    Attributes:
      hint_channels: widths of the convolutions that the hint goes through; each but the first halves its sides.
    """

    hint_channels: tuple[int, ...] = (16, 32, 96, 256)

    def _outline(self) -> Base:
        """Returns the base, with a ControlNet of its U-Net's shape."""
        base = super()._outline()
        unet, factor = base.bundle.components["unet"], base.model.factor
        if 2 ** (len(self.hint_channels) - 1) != factor or min(self.hint_channels) < 1:
            raise ValueError(
                f"task.hint_channels is {self.hint_channels}, and latents have one for {factor} pixels: expected "
                f"{factor.bit_length()} widths above 0"
            )
        json = {"_class_name": KIND, **{name: unet.json[name] for name in _OF_UNET if name in unet.json}}
        json |= {"conditioning_embedding_out_channels": list(self.hint_channels), "conditioning_channels": 3}
        net = family(KIND).config(json)
        net = dataclasses.replace(net, net=dataclasses.replace(net.net, dtype=self.dtype))
        part = Component(KIND, json, net, family(KIND).shapes(net, json))
        bundle = dataclasses.replace(base.bundle, components={**base.bundle.components, "controlnet": part})
        nets, kinds = {**base.model.nets, "controlnet": net}, {**base.model.kinds, "controlnet": KIND}
        return base._replace(bundle=bundle, model=dataclasses.replace(base.model, nets=nets, kinds=kinds))

    def _cond(self, assets: Assets, params: Params, batch: Batch) -> Cond:
        cond = super()._cond(assets, params, batch)
        return dataclasses.replace(cond, hints=(batch["hint"].astype(jnp.float32) / 255,))

    def _network(self, assets: Assets) -> Network:
        """Returns the U-Net, with the ControlNet's part in it."""
        nets = assets.base.model.nets
        control = dataclasses.replace(nets["controlnet"].net, remat=self.remat)
        controlled_net = controlled(
            dataclasses.replace(nets["unet"], remat=self.remat), [dataclasses.replace(nets["controlnet"], net=control)]
        )

        def network(params: Params, x: Array, t: Array, cond: Cond) -> Any:
            parts = {"unet": params["unet"], "controls": [params["controlnet"]], "scales": [1.0]}
            return controlled_net(parts, x, t, cond)

        return network

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        part, of_unet = assets.base.bundle.components["controlnet"], flatten(loaded["unet"])
        flat = flatten(controlnet.init(part.config, part.json, key))
        own = {path: x if path.startswith(("hint/", "skip_")) else of_unet[path] for path, x in flat.items()}
        return {"controlnet": unflatten(own)}, dict(loaded)

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        return {**frozen, **params}

    def apart(self, assets: Assets, weights: Variables, out: Path, layout: str) -> Callable[[Path], None]:
        """Returns what writes the ControlNet as a directory, as diffusers has it."""
        if out.suffix:
            raise ValueError(f"out is {out}: this run is a ControlNet, for a new directory")
        part = dataclasses.replace(assets.base.bundle.components["controlnet"], params=weights.params["controlnet"])
        return lambda to: write_component(part, to)
