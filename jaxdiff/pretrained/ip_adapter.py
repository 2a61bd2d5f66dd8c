"""IP-adapter files: keys and values for a picture's tokens in all cross-attentions of a U-Net; what makes tokens.

They number the attentions of a U-Net on the way down, then up, then in the middle; odd numbers are cross-attentions.

Source: Ye et al. 2023, arXiv 2308.06721, section 3.2.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models.image_clip import ImageTokens, Resampler
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained import files
from jaxdiff.pretrained.read import Component, placed
from jaxdiff.pretrained.rules import Rule, Rules, TensorError, flatten, from_tensors, to_tensors, under, unflatten
from jaxdiff.typing import Params

TOKENS = 4
"""Tokens of a picture in the plain adapters, whose files do not say it."""

_PLUS = (
    Rule("latents", "latents", "same"),
    Rule("proj_in", "proj_in", "dense"),
    Rule("layers.{}.0.norm1", "block_{}_norm1", "norm"),
    Rule("layers.{}.0.norm2", "block_{}_norm2", "norm"),
    Rule("layers.{}.0.to_q", "block_{}_q", "dense"),
    Rule("layers.{}.0.to_kv", "block_{}_kv", "dense"),
    Rule("layers.{}.0.to_out", "block_{}_out", "dense"),
    Rule("layers.{}.1.0", "block_{}_norm3", "norm"),
    Rule("layers.{}.1.1", "block_{}_fc1", "dense"),
    Rule("layers.{}.1.3", "block_{}_fc2", "dense"),
    Rule("proj_out", "proj_out", "dense"),
    Rule("norm_out", "norm_out", "norm"),
)
_PROJECTION = (Rule("proj", "proj", "dense"), Rule("norm", "norm", "norm"), *_PLUS)


@dataclasses.dataclass(frozen=True)
class IPAdapter:
    """What an IP-adapter adds.

    Attributes:
      unet: parameters that go into the U-Net's tree, where its cross-attentions are; `apply_to` puts them there.
      tokens: what makes tokens: `ImageTokens` of the picture's vector, or `Resampler` of the states that CLIP's image
        encoder gives with skip=1.
      projection: the parameters of `tokens`.
    """

    unet: Params
    tokens: ImageTokens | Resampler
    projection: Params

    def apply_to(self, unet: Params) -> Params:
        """The U-Net's parameters with the adapter's; its calls then need `cond.picture` to make use of them."""
        return unflatten({**flatten(unet), **flatten(self.unet)})


def read(path: Path | str, unet: Component, dtype: Any = None) -> IPAdapter:
    """The adapter of a file, plain or plus, for this U-Net.

    Args:
      path: .safetensors or .bin, as published.
      unet: the U-Net it is for.
      dtype: of the parameters; None keeps what the file has.

    Raises:
      ValueError: if it is no such adapter.
      TensorError: lists tensors that do not fit this U-Net.
    """
    tensors = files.read_tensors(path)
    net, like = _tokens(path, {name: x.shape for name, x in tensors.items()})
    shapes = {
        "projection": jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(like)))["params"],
        "unet": _unet_shapes(unet.params, net.width),
    }
    try:
        params = from_tensors(tensors, shapes, _rules(unet.config), placed(shapes, dtype))
    except TensorError as error:
        raise TensorError(f"{path}: {error}") from None
    return IPAdapter(params["unet"], net, params["projection"])


def write(path: Path | str, adapter: IPAdapter, net: UNetConfig) -> None:
    """One safetensors file, named as the published ones."""
    files.write_safetensors(path, to_tensors({"projection": adapter.projection, "unet": adapter.unet}, _rules(net)))


def _tokens(path: Path | str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[ImageTokens | Resampler, tuple[int, ...]]:
    """What makes tokens, and the shape of what it takes."""
    start = "image_proj."
    if start + "latents" in shapes:
        _, tokens, hidden = shapes[start + "latents"]
        width, seen = shapes[start + "proj_out.weight"][0], shapes[start + "proj_in.weight"][1]
        layers = sum(name.startswith(start) and name.endswith(".0.to_q.weight") for name in shapes)
        heads = shapes[start + "layers.0.0.to_q.weight"][0] // Resampler.head_dim
        ratio = shapes[start + "layers.0.1.1.weight"][0] // hidden
        return Resampler(tokens, width, hidden, heads, layers=layers, ratio=ratio), (1, 1, seen)
    if start + "proj.weight" in shapes:
        rows, vector = shapes[start + "proj.weight"]
        return ImageTokens(TOKENS, rows // TOKENS), (1, vector)
    raise ValueError(f"{path} is no plain or plus IP-adapter: it has no {start}proj.weight and no {start}latents")


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
        *under("image_proj", "projection", _PROJECTION),
        *(
            Rule(f"ip_adapter.{2 * n + 1}.to_{name}_ip", f"unet/{block}/attn2/{name}_picture", "dense")
            for n, block in enumerate(blocks)
            for name in ("k", "v")
        ),
    )
