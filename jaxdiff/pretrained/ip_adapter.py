"""IP-adapter files: keys and values for a picture's tokens in all cross-attentions of a U-Net; what makes tokens.

They number the attentions of a U-Net on the way down, then up, then in the middle; odd numbers are cross-attentions.

Source: Ye et al. 2023, arXiv 2308.06721, section 3.2.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models.image_clip import ImageTokens
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained import files
from jaxdiff.pretrained.read import Component, placed
from jaxdiff.pretrained.rules import Rule, Rules, TensorError, flatten, from_tensors, to_tensors, unflatten
from jaxdiff.typing import Params

TOKENS = 4
"""Tokens of a picture in the plain adapters, whose files do not say it."""


@dataclasses.dataclass(frozen=True)
class IPAdapter:
    """What an IP-adapter adds.

    Attributes:
      unet: parameters that go into the U-Net's tree, where its cross-attentions are; `apply_to` puts them there.
      width: of a token.
      projection: the parameters of `ImageTokens(TOKENS, width)`, from a picture's vector to tokens.
    """

    unet: Params
    width: int
    projection: Params

    def apply_to(self, unet: Params) -> Params:
        """The U-Net's parameters with the adapter's; its calls then need `cond.picture` to make use of them."""
        return unflatten({**flatten(unet), **flatten(self.unet)})


def read(path: Path | str, unet: Component, dtype: Any = None) -> IPAdapter:
    """The adapter of a file, for this U-Net.

    Args:
      path: .safetensors or .bin, as published.
      unet: the U-Net it is for.
      dtype: of the parameters; None keeps what the file has.

    Raises:
      ValueError: if it is a variant with a resampler ("plus"), which is not supported.
      TensorError: lists tensors that do not fit this U-Net.
    """
    tensors = files.read_tensors(path)
    if "image_proj.latents" in tensors:
        raise ValueError(f"{path} is a 'plus' IP-adapter, whose tokens come from a resampler: only plain ones work")
    if "image_proj.proj.weight" not in tensors:
        raise ValueError(f"{path} is no IP-adapter: it has no image_proj.proj.weight")
    rows, vector = tensors["image_proj.proj.weight"].shape
    width = rows // TOKENS
    shapes = {"projection": _projection_shapes(width, vector), "unet": _unet_shapes(unet.params, width)}
    try:
        params = from_tensors(tensors, shapes, _rules(unet.config), placed(shapes, dtype))
    except TensorError as error:
        raise TensorError(f"{path}: {error}") from None
    return IPAdapter(params["unet"], width, params["projection"])


def write(path: Path | str, adapter: IPAdapter, net: UNetConfig) -> None:
    """One safetensors file, named as the published ones."""
    files.write_safetensors(path, to_tensors({"projection": adapter.projection, "unet": adapter.unet}, _rules(net)))


def _projection_shapes(width: int, vector: int) -> Params:
    net = ImageTokens(TOKENS, width)
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, vector))))["params"]


def _unet_shapes(params: Params, width: int) -> Params:
    shapes = {}
    for path, leaf in flatten(params).items():
        for name in ("k", "v"):
            if path.endswith(f"attn2/{name}/kernel"):
                new = path.replace(f"/{name}/kernel", f"/{name}_picture/kernel")
                shapes[new] = jax.ShapeDtypeStruct((width, leaf.shape[1]), np.float32)
    return unflatten(shapes)


def _rules(net: UNetConfig) -> Rules:
    levels = range(len(net.channels))
    places = [(f"down_{i}", i, net.layers) for i in levels]
    places += [(f"up_{j}", i, net.layers + 1) for j, i in enumerate(reversed(levels))]
    blocks = [
        f"{level}/attn_{j}/block_{k}"
        for level, i, count in places
        if net.attention[i] == "cross"
        for j in range(count)
        for k in range(net.depth[i])
    ]
    blocks += [f"mid/attn_0/block_{k}" for k in range(net.depth[-1])]
    return (
        Rule("image_proj.proj", "projection/proj", "dense"),
        Rule("image_proj.norm", "projection/norm", "norm"),
        *(
            Rule(f"ip_adapter.{2 * n + 1}.to_{name}_ip", f"unet/{block}/attn2/{name}_picture", "dense")
            for n, block in enumerate(blocks)
            for name in ("k", "v")
        ),
    )
