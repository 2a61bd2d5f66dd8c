"""Draws pictures with DALL-E mini or mega: a text's tokens, 256 codes one after another, and the VQGAN's pictures."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array

from jaxdiff.data import dalle_text
from jaxdiff.data.tokenizer_bytes import PAD
from jaxdiff.models import bart
from jaxdiff.models.autoencoder_vq import AutoencoderVQ
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines import tokens
from jaxdiff.pipelines.program import to_pixels
from jaxdiff.pretrained import dalle_mini
from jaxdiff.pretrained.read import Bundle
from jaxdiff.sampling.tokens import Numbers


@dataclasses.dataclass(frozen=True)
class Options(tokens.Options):
    __doc__ = tokens.Options.__doc__

    guidance: float | None = 10.0


def pipeline(
    bundle: Bundle, spec: Any = MeshSpec(), devices: Sequence[jax.Device] | None = None
) -> tokens.TokenPipeline:
    """Returns the pipeline of a model that `pretrained.dalle_mini` read."""
    part, vqgan, tokenizer = (
        bundle.components["transformer"],
        bundle.components["vqgan"],
        bundle.tokenizers["tokenizer"],
    )
    net, pad = part.config, tokenizer.ids[PAD]
    side = math.isqrt(net.places)
    plain = dalle_text.normalise if dalle_mini.normalises(part.json) else lambda text: text

    def draw(weights: Any, ids: Array, away: Array | None, keys: Any, numbers: Numbers) -> Array:
        index = bart.sample(net, weights["transformer"], ids, away, pad, keys, numbers).reshape(-1, side, side)
        picture: Any = AutoencoderVQ(vqgan.config).apply({"params": weights["vqgan"]}, index, method="picture")
        return to_pixels(2 * picture - 1)  # it was trained on pictures in [0, 1]

    return tokens.TokenPipeline(
        {name: one.params for name, one in bundle.components.items()},
        draw,
        encode=lambda prompt: tokenizer.encode(plain(prompt) if prompt else "", net.length),
        cut=lambda prompt: tokenizer.cut(plain(prompt), net.length),
        size=side * vqgan.config.unit,
        calls=net.places,
        options=Options,
        spec=spec,
        devices=devices,
    )
