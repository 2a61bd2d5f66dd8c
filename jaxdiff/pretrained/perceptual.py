"""Distances of images by what a trained classifier sees in them, as a term of a loss.

`efficientnet_lite0` comes in a package and downloads nothing. Like LPIPS it compares features that are scaled to length
1 at each place, at five depths; no one has weighed its channels by what people see, so all count alike.

Source: Zhang et al. 2018, arXiv 1801.03924, equation 1.
"""

from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxdiff.models import efficientnet
from jaxdiff.models.efficientnet import EfficientNetLite0
from jaxdiff.models.lpips import Lpips
from jaxdiff.pretrained import features
from jaxdiff.typing import Params

Perceptual = Literal["none", "efficientnet_lite0", "lpips_alex", "lpips_vgg"]
LOOKED_AT = "320"
"""The features of EfficientNet-Lite0, by width, whose Frechet distance a run reports while it trains."""


def read(name: Perceptual, folder: Path | None = None) -> Params:
    """Reads the weights of a distance by name.

    Args:
      name: name of the distance; `none` has no weights.
      folder: that holds the published files; None looks where `pretrained.features` says.

    Raises:
      FileNotFoundError: if a file is missing; says which, its checksum, from whom, and where to put it.
      ValueError: if a file is another than the published one.
    """
    at = lambda file: features.find(file, folder / file.names[0] if folder else None)
    if name == "efficientnet_lite0":
        return features.efficientnet_params(at(features.EFFICIENTNET))
    if name.startswith("lpips_"):
        trunk = name.removeprefix("lpips_")
        return features.lpips_params(trunk, at(features.TRUNKS[trunk]), at(features.LINEAR[trunk]))
    return {}


def check(name: Perceptual, size: int) -> None:
    """Refuses images that are too small for a distance, or do not halve as often as its classifier does.

    Raises:
      ValueError: says the size and what would do.
    """
    unit = {"efficientnet_lite0": efficientnet.MAPS_UNIT}.get(name, 1)
    least = {"lpips_alex": 32, "lpips_vgg": 16}.get(name, 1)
    if size % unit or size < least:
        wanted = f"a multiple of {unit}" if size % unit else f"at least {least}"
        raise ValueError(f"images have sides of {size}: {name} needs {wanted}; choose it, or the distance 'none'")


def distance(
    name: Perceptual, params: Params, x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"]
) -> Float[Array, " b"]:
    """Returns how different each pair of images in [-1, 1] looks; 0 for `none`."""
    if name == "none":
        return jnp.zeros(len(x))
    if name == "efficientnet_lite0":
        pairs = zip(_maps(params, x), _maps(params, y), strict=True)
        return sum(((a - b) ** 2).sum(-1).mean((1, 2)) for a, b in pairs) + jnp.zeros(len(x))
    network: Any = Lpips("alex" if name == "lpips_alex" else "vgg")
    return network.apply({"params": params}, x, y)


def looked_at(params: Params, pixels: UInt8[Array, "b h w 3"]) -> Float[Array, "b d"]:
    """Returns what EfficientNet-Lite0 sees in images, as `jaxdiff evaluate` takes it at the width `LOOKED_AT`."""
    seen: Any = EfficientNetLite0().apply({"params": params}, efficientnet.prepare(pixels))
    return seen[LOOKED_AT]


def _maps(params: Params, x: Float[Array, "b h w 3"]) -> list[Float[Array, "b i j c"]]:
    maps: Any = EfficientNetLite0().apply({"params": params}, (x * 127.5 + 0.5) / 128, maps=True)  # as its `prepare`
    return [one * jax.lax.rsqrt((one * one).sum(-1, keepdims=True) + 1e-10) for one in maps.values()]
