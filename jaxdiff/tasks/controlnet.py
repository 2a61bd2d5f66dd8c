"""A ControlNet for a model of others: it starts as a copy of the U-Net's way down, and its last layers at zero.

So the model's output is at first what it was. Hints are made of the pictures on the way (`data.hints`), or lie in
another folder under the same names.

Source: Zhang et al. 2023, arXiv 2302.05543, section 3.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data import hints
from jaxdiff.data.latents import LatentSource
from jaxdiff.data.source import DataConfig, Example, Source, names_of
from jaxdiff.models.controlnet import controlled
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import controlnet, flatten, unflatten
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.published import Assets, PublishedConfig
from jaxdiff.training import OptimizerConfig, Variables
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


class More(NamedTuple):
    """Holds what a ControlNet's run has beside the base.

    Attributes:
      files: of hints, by the picture's name without its ending.
      shown: uint8 [n h w 3], hints for the previews.
    """

    files: dict[str, Path]
    shown: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PublishedConfig):
    """A ControlNet.

    Attributes:
      hint: what it looks at: edges (canny) or a blurred picture (blur), made on the way, or pictures in `folder`.
      folder: of hints, each under the name of its picture.
      low: canny's lower threshold.
      high: canny's higher one.
      blur: deviation of the Gaussian, in pixels.
      hint_channels: widths of the convolutions that the hint goes through; each but the first halves its sides.
    """

    hint: Literal["canny", "blur", "files"] = "canny"
    folder: Path | None = None
    low: float = 100.0
    high: float = 200.0
    blur: float = 8.0
    hint_channels: tuple[int, ...] = (16, 32, 96, 256)

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if (self.hint == "files") != (self.folder is not None):
            raise ValueError(
                f"task.hint is {self.hint!r} and task.folder {self.folder}: files, and only files, want one"
            )
        if self.hint == "files" and data.flip:
            raise ValueError("data.flip is True, and hints in files are not mirrored with their pictures: leave it out")
        if not 0 <= self.low <= self.high or not self.blur > 0:
            raise ValueError(
                f"task.low is {self.low}, task.high {self.high} and task.blur {self.blur}: expected 0 <= low <= high, "
                "and a blur above 0"
            )
        if self.prior.prompt:
            raise ValueError(
                "task.prior is for what learns a word or a style: a ControlNet takes none, so leave it out"
            )
        super().check(data, optimizer)

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

    def _prepare(self, assets: Assets, folder: Path, data: DataConfig, source: Source | None, new: bool) -> Assets:
        if source is None:
            return assets
        if isinstance(source, LatentSource):
            raise ValueError(
                f"hints are made of pictures, and {data.name} are latents: name the folder of the pictures"
            )
        found = hints.beside(self.folder, names_of(source), "task.folder") if self.folder is not None else {}
        assets = assets._replace(more=More(found, np.zeros(0)))
        rows = [self._hint(assets, source[i]) for i in range(min(len(self.preview.prompts), len(source)))]
        return assets._replace(more=More(found, np.stack(rows))) if rows else assets

    def _hint(self, assets: Assets, one: Example) -> np.ndarray:
        if self.hint == "canny":
            return hints.canny(one["image"], self.low, self.high)
        if self.hint == "blur":
            return hints.blur(one["image"], self.blur)
        if "name" not in one or assets.more is None:  # what only tells a batch's shapes
            return np.zeros_like(one["image"])
        return hints.read_beside(assets.more.files, one["name"], assets.size)

    def _row(self, assets: Assets, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {**super()._row(assets, one, rng), "hint": self._hint(assets, one)}

    def _cond(self, assets: Assets, params: Params, told: Batch) -> Cond:
        cond = super()._cond(assets, params, told)
        return dataclasses.replace(cond, hints=(told["hint"].astype(jnp.float32) / 255,))

    def _network(self, assets: Assets) -> Network:
        """Returns the U-Net, with the ControlNet's part in it."""
        nets = assets.base.model.nets
        control = dataclasses.replace(nets["controlnet"].net, remat=self.remat)
        whole = controlled(
            dataclasses.replace(nets["unet"], remat=self.remat), [dataclasses.replace(nets["controlnet"], net=control)]
        )

        def network(params: Params, x: Array, t: Array, cond: Cond) -> Any:
            parts = {"unet": params["unet"], "controls": [params["controlnet"]], "scales": [1.0]}
            return whole(parts, x, t, cond)

        return network

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        part, of_unet = assets.base.bundle.components["controlnet"], flatten(loaded["unet"])
        made = flatten(controlnet.init(part.config, part.json, key))
        own = {path: x if path.startswith(("hint/", "skip_")) else of_unet[path] for path, x in made.items()}
        return {"controlnet": unflatten(own)}, dict(loaded)

    def _whole(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        return {**frozen, **params}

    def _preview_inputs(self, assets: Assets) -> dict[str, Any]:
        return {"hints": assets.more.shown}

    def apart(self, assets: Assets, weights: Variables, out: Path, layout: str) -> Callable[[Path], None]:
        """Returns what writes the ControlNet as a directory, as diffusers has it."""
        if out.suffix:
            raise ValueError(f"out is {out}: this run is a ControlNet, for a new directory")
        part = dataclasses.replace(assets.base.bundle.components["controlnet"], params=weights.params["controlnet"])
        return lambda to: write_component(part, to)
