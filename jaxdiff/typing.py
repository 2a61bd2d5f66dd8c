"""The types that everything else agrees on. Shapes are jaxtyping strings; `*s` is a picture's [h, w, c]."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int

Key = Array
"""One PRNG key (a scalar key array), or `keys`: one for each example [b]."""

Params = Mapping[str, Any]
"""A tree of nested dicts of arrays; its paths are the checkpoint format."""

Batch = Mapping[str, Any]
"""Arrays whose first axis is the example."""

Metrics = Mapping[str, Any]
"""Scalars by name."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cond:
    """The condition that steers a network. Every field is optional, and a network ignores none that it is given.

    Attributes:
      context: tokens for cross-attention.
      context_mask: true where a token of `context` counts.
      label: class ids.
      pooled: a vector added to the time embedding.
      embed: CLIP's embedding of a picture, seen or imagined by a prior.
      image: concatenated to the network's input (a low resolution picture, a mask, a depth map).
      augment: the noise-conditioning level of `image`.
      hints: pictures for ControlNets, one for each.
      features: features of a T2I-adapter, one for each level of the way down; one more is for the middle.
      picture: tokens of a picture, for cross-attention of their own (an IP-adapter's).
      picture_weight: how much `picture` counts.
      guidance: scale that a distilled network is conditioned on, in the place of being guided.
    """

    context: Float[Array, "b l d"] | None = None
    context_mask: Bool[Array, "b l"] | None = None
    label: Int[Array, " b"] | None = None
    pooled: Float[Array, "b p"] | None = None
    embed: Float[Array, "b v"] | None = None
    image: Float[Array, "b h w c"] | None = None
    augment: Float[Array, " b"] | None = None
    hints: tuple[Float[Array, "b ..."], ...] = ()
    features: tuple[Float[Array, "b ..."], ...] = ()
    picture: Float[Array, "b m f"] | None = None
    picture_weight: Float[Array, " b"] | None = None
    guidance: Float[Array, " b"] | None = None


Network = Callable[..., Array]
"""(params, x[b *s], t[b], cond: Cond) -> y[b *o]: a Linen module's apply, bound; t is what the network calls time."""

Denoise = Callable[..., Array]
"""(x_t[b *s], t[] or [b], aux) -> x0[b *s] in float32; aux is this step's slice of `Table.aux`."""


class Estimate(NamedTuple):
    """The output of a denoiser with a learned variance.

    Attributes:
      x0: the estimate of the clean picture, float32.
      scale: what this call's noise is multiplied by: the learned standard deviation.
    """

    x0: Float[Array, " b *s"]
    scale: Float[Array, " b *s"]


LearnedDenoise = Callable[..., Estimate]
"""(x_t[b *s], t[] or [b], aux) -> Estimate; `guidance.keep_scale` makes a transform of it from one of `Denoise`."""

Transform = Callable[[Denoise], Denoise]
"""Thresholding, rescaling, inpainting: they stack."""
