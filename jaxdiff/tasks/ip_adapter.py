"""An IP-adapter for a model of others: pictures as prompts, by keys and values of their own in all cross-attentions.

    attention(q, K, V) + attention(q, K', V'),    K', V' of a few tokens that a projection makes of CLIP's vector

K' and V' start as the U-Net's own for text. The U-Net, the text encoders and CLIP's image encoder are frozen. Captions,
pictures, and both are left out of some examples; a picture that is left out is a vector of zeros.

Source: Ye et al. 2023, arXiv 2308.06721, section 3.2.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig, Source
from jaxdiff.models.image_clip import ClipImage, ImageTokens, prepare
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained import ip_adapter
from jaxdiff.pretrained.ip_adapter import IPAdapter
from jaxdiff.pretrained.read import read_component
from jaxdiff.pretrained.rules import flatten, unflatten
from jaxdiff.tasks import base_model, hinted, saved
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.published import Assets, PublishedConfig
from jaxdiff.tasks.task import Spec
from jaxdiff.training import OptimizerConfig, Variables
from jaxdiff.typing import Batch, Cond, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PublishedConfig):
    """An IP-adapter.

    Attributes:
      image_encoder: directory of CLIP's image encoder; a run reads it anew at each start.
      tokens: tokens of a picture; diffusers reads files of 4 alone.
      drop: how often the caption alone, the picture alone, and both are left out, each.
    """

    image_encoder: Path | None = None
    tokens: int = 4
    drop: float = 0.05

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if not 0 <= self.drop <= 1 / 3:
            raise ValueError(f"task.drop is {self.drop}, three times of which are left out: expected 0 to 1/3")
        if not 1 <= self.tokens <= 1024:
            raise ValueError(f"task.tokens is {self.tokens}: expected 1 to 1024")
        hinted.check_alone(self)
        super().check(data, optimizer)

    def _outline(self) -> Base:
        """Returns the base, with the image encoder."""
        base = super()._outline()
        if self.image_encoder is None:
            raise ValueError("task.image_encoder is not given: name the directory of CLIP's image encoder")
        part = read_component(self.image_encoder, weights=False)
        if part.kind != "CLIPVisionModelWithProjection":
            raise ValueError(
                f"task.image_encoder is {self.image_encoder}, a {part.kind}: expected CLIP's image encoder"
            )
        part = dataclasses.replace(part, config=dataclasses.replace(part.config, dtype=self.dtype))
        bundle = dataclasses.replace(base.bundle, components={**base.bundle.components, "image_encoder": part})
        return base._replace(bundle=bundle)

    def _load(self, assets: Assets, place: Callable[[Params], Any]) -> Params:
        assert self.image_encoder is not None  # `_outline` has read it
        return {**super()._load(assets, place), **saved.load_part(self.image_encoder, "image_encoder", place)}

    def _prepare(self, assets: Assets, folder: Path, data: DataConfig, source: Source | None, new: bool) -> Assets:
        if source is None:
            return assets
        hinted.refuse_latents(source, data)
        return assets._replace(more=[source[i % len(source)]["image"] for i in range(len(self.preview.prompts))])

    def _tokens(self, assets: Assets) -> ImageTokens:
        kernels = flatten(assets.base.bundle.components["unet"].params)
        width = next(x.shape[0] for path, x in kernels.items() if path.endswith("attn2/k/kernel"))
        return ImageTokens(self.tokens, width)

    def _gone(self, keys: Key) -> Array:
        return hinted.three_ways(keys, self.drop)[0]

    def _cond(self, assets: Assets, params: Params, batch: Batch) -> Cond:
        cond = super()._cond(assets, params, batch)
        net = assets.base.bundle.components["image_encoder"].config
        pixels = prepare(batch["image"].astype(jnp.float32) / 255, net.size)
        told_of: Any = ClipImage(net).apply({"params": params["image_encoder"]}, pixels)
        gone = hinted.three_ways(batch["keys"], self.drop)[1]
        vector = jnp.where(gone[:, None], 0.0, told_of[1].astype(jnp.float32))
        tokens: Any = self._tokens(assets).apply({"params": params["projection"]}, vector)
        return dataclasses.replace(cond, picture=tokens, picture_weight=jnp.ones(len(tokens)))

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        unet = {}
        for path, x in flatten(loaded["unet"]).items():
            for name in "kv":
                if path.endswith(f"attn2/{name}/kernel"):
                    unet[path.replace(f"/{name}/kernel", f"/{name}_picture/kernel")] = x
        vector = jnp.zeros((1, assets.base.bundle.components["image_encoder"].config.projection))
        projection = self._tokens(assets).init(key, vector)["params"]
        return {"unet": unflatten(unet), "projection": projection}, dict(loaded)

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        return {**frozen, "unet": base_model.join(frozen["unet"], params["unet"]), "projection": params["projection"]}

    def adapter(self, assets: Assets, params: Params) -> IPAdapter:
        """Returns what was trained, as `pretrained.ip_adapter` has it."""
        return IPAdapter(params["unet"], self._tokens(assets), params["projection"])

    def bundle(self, assets: Assets, weights: Variables) -> Any:
        """Returns the base and the image encoder; the adapter is no part of a model that other tools know."""
        parts = assets.base.bundle.components
        components = {name: dataclasses.replace(part, params=weights.frozen[name]) for name, part in parts.items()}
        return dataclasses.replace(assets.base.bundle, components=components)

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> DiffusionPipeline:
        """Returns what samples from the model with the adapter."""
        return DiffusionPipeline(
            self.bundle(assets, weights), ip_adapter=self.adapter(assets, weights.params), spec=spec
        )

    def _preview_parts(self, assets: Assets, weights: Variables) -> dict[str, Any]:
        params_of = self._weights(assets, weights.params, weights.frozen)
        return {**params_of, "picture_tokens": params_of.pop("projection")}

    def _preview_inputs(self, assets: Assets) -> dict[str, Any]:
        return {"picture": np.stack(assets.more)}

    def apart(self, assets: Assets, weights: Variables, out: Path, layout: str) -> Callable[[Path], None]:
        """Returns what writes the adapter as one file, as its authors have it."""
        if out.suffix != ".safetensors":
            raise ValueError(f"out is {out}: this run is an IP-adapter, for a file that ends in .safetensors")
        net = assets.base.bundle.components["unet"].config
        return lambda to: ip_adapter.write(to, self.adapter(assets, weights.params), net)
