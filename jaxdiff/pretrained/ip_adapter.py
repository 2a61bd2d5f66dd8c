"""IP-adapter files: keys and values for a picture's tokens in all cross-attentions of a U-Net; what makes tokens.

    plain (also light and those for ViT-bigG)   the picture's vector becomes a few tokens
    plus, plus face                             learned queries look at the states of the picture's tokens
    full face                                   each state becomes a token

Those for a vector of a face (FaceID) need another network to find it and are refused. The files number the
attentions of a U-Net on the way down, then up, then in the middle; odd numbers are cross-attentions.

Source: Ye et al. 2023, arXiv 2308.06721, section 3.2.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models.image_clip import ImageTokens, Resampler, StateTokens
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained import files
from jaxdiff.pretrained.read import Component, placed
from jaxdiff.pretrained.rules import Rule, Rules, TensorError, flatten, from_tensors, to_tensors, under, unflatten
from jaxdiff.pretrained.widths import of_context, of_states, of_vector
from jaxdiff.typing import Params

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
_FULL = (Rule("proj.0", "fc1", "dense"), Rule("proj.2", "fc2", "dense"), Rule("proj.3", "norm", "norm"))
_PLAIN = (Rule("proj", "proj", "dense"), Rule("norm", "norm", "norm"))


Tokens = ImageTokens | Resampler | StateTokens


@dataclasses.dataclass(frozen=True)
class IPAdapter:
    """The parts that an IP-adapter adds.

    Attributes:
      unet: parameters that go into the U-Net's tree, where its cross-attentions are; `apply_to` puts them there.
      tokens: what makes tokens: `ImageTokens` of the picture's vector; `Resampler` or `StateTokens` of the states that
        CLIP's image encoder gives with skip=1.
      projection: the parameters of `tokens`.
    """

    unet: Params
    tokens: Tokens
    projection: Params

    def apply_to(self, unet: Params) -> Params:
        """Returns the U-Net's parameters with the adapter's; its calls then need `cond.picture` to make use of them."""
        return unflatten({**flatten(unet), **flatten(self.unet)})


def read(path: Path | str, unet: Component, dtype: Any = None, image_encoder: Component | None = None) -> IPAdapter:
    """Returns the adapter of a file, plain, plus or full, for this U-Net.

    Args:
      path: .safetensors or .bin, as published.
      unet: the U-Net it is for.
      dtype: dtype of the parameters; None keeps what the file has.
      image_encoder: what gives vectors and states; its widths are checked where it is given.

    Raises:
      ValueError: if it is not such a adapter, is damaged, or is for another U-Net or image encoder.
      TensorError: lists tensors that do not fit this U-Net.
    """
    tensors = files.read_tensors(path)
    shapes_there = {name: tuple(x.shape) for name, x in tensors.items()}
    try:
        net, projection_rules, like = _tokens(shapes_there)
        _check_models(shapes_there, like, unet, image_encoder)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    shapes = {
        "projection": jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(like)))["params"],
        "unet": _unet_shapes(unet.params, net.width),
    }
    try:
        params = from_tensors(tensors, shapes, _rules(unet.config, projection_rules), placed(shapes, dtype))
    except TensorError as error:
        raise TensorError(f"{path}: {error}") from None
    return IPAdapter(params["unet"], net, params["projection"])


def write(path: Path | str, adapter: IPAdapter, net: UNetConfig) -> None:
    """Writes one safetensors file, named as the published ones."""
    rules = {ImageTokens: _PLAIN, Resampler: _PLUS, StateTokens: _FULL}[type(adapter.tokens)]
    params = {"projection": adapter.projection, "unet": adapter.unet}
    files.write_safetensors(path, to_tensors(params, _rules(net, rules)))


def _tokens(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Tokens, Rules, tuple[int, ...]]:
    """Returns what makes tokens, its table of names, and the shape of what it takes.

    Raises:
      ValueError: if no such network has these tensors; what the file is or lacks, after its name.
    """

    def shape(name: str, size: int) -> tuple[int, ...]:
        found = shapes.get(f"image_proj.{name}")
        if found is None:
            raise ValueError(f"is a damaged IP-adapter: it has no image_proj.{name}")
        if len(found) != size or 0 in found:
            raise ValueError(f"is a damaged IP-adapter: image_proj.{name} is {found}, expected {size} dimensions")
        return found

    start = "image_proj."
    face = any("perceiver_resampler" in name or "to_q_lora" in name for name in shapes)
    if face or (f"{start}proj.0.weight" in shapes and f"{start}norm.weight" in shapes):
        raise ValueError("is an IP-adapter for vectors of faces (FaceID), which is not supported: plain, plus or full")
    if f"{start}latents" in shapes:
        _, tokens, hidden = shape("latents", 3)
        width, seen = shape("proj_out.weight", 2)[0], shape("proj_in.weight", 2)[1]
        layers = sum(name.startswith(start) and name.endswith(".0.to_q.weight") for name in shapes)
        inner, ratio = shape("layers.0.0.to_q.weight", 2)[0], shape("layers.0.1.1.weight", 2)[0] // hidden
        if inner % Resampler.head_dim:
            raise ValueError(f"has heads of {Resampler.head_dim} in {inner} numbers: they do not divide")
        heads = inner // Resampler.head_dim
        return Resampler(tokens, width, hidden, heads, layers=layers, ratio=ratio), _PLUS, (1, 1, seen)
    if f"{start}proj.weight" in shapes:
        rows, vector = shape("proj.weight", 2)
        (width,) = shape("norm.weight", 1)
        if rows % width:
            raise ValueError(f"is a damaged IP-adapter: {rows} numbers are no tokens of {width}")
        return ImageTokens(rows // width, width), _PLAIN, (1, vector)
    if f"{start}proj.3.weight" in shapes:
        hidden, seen = shape("proj.0.weight", 2)
        return StateTokens(shape("proj.2.weight", 2)[0], hidden), _FULL, (1, 1, seen)
    raise ValueError(f"is not an IP-adapter: it has no {start}proj.weight, {start}latents or {start}proj.3.weight")


def _check_models(
    shapes: Mapping[str, tuple[int, ...]], like: tuple[int, ...], unet: Component, encoder: Component | None
) -> None:
    """Compares widths with the U-Net's and the image encoder's.

    Raises:
      ValueError: if the adapter is for others; names both.
    """
    here = unet.json.get("cross_attention_dim")
    there = shapes.get("ip_adapter.1.to_k_ip.weight", ())
    if len(there) == 2 and isinstance(here, int) and there[1] != here:
        raise ValueError(f"is an IP-adapter for {of_context(there[1])}: this model is {of_context(here)}")
    if encoder is not None:
        named, own = (of_vector, encoder.config.projection) if len(like) == 2 else (of_states, encoder.config.width)
        if own != like[-1]:
            what = "vectors" if len(like) == 2 else "states"
            raise ValueError(f"takes {what} of {named(like[-1])}: the image encoder gives {named(own)}")


def _unet_shapes(params: Params, width: int) -> Params:
    shapes = {}
    for path, leaf in flatten(params).items():
        for name in ("k", "v"):
            if path.endswith(f"attn2/{name}/kernel"):
                new = path.replace(f"/{name}/kernel", f"/{name}_picture/kernel")
                shapes[new] = jax.ShapeDtypeStruct((width, leaf.shape[1]), np.float32)
    return unflatten(shapes)


def _rules(net: UNetConfig, projection: Rules) -> Rules:
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
        *under("image_proj", "projection", projection),
        *(
            Rule(f"ip_adapter.{2 * n + 1}.to_{name}_ip", f"unet/{block}/attn2/{name}_picture", "dense")
            for n, block in enumerate(blocks)
            for name in ("k", "v")
        ),
    )
