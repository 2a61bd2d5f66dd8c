"""The classes of other libraries that a pipeline can be made of, and what is ours for each."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxdiff.pretrained.rules import Rules, adapter, autoencoder, clip, controlnet, unet
from jaxdiff.typing import Params

Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """How to read and write the models of one class.

    Attributes:
      config: config.json -> our config.
      shapes: (our config, config.json) -> the tree of our parameters, as shapes.
      rules: (our config, config.json) -> the table of names.
      stem: the file of its weights.
    """

    config: Callable[[Json], Any]
    shapes: Callable[[Any, Json], Params]
    rules: Callable[[Any, Json], Rules]
    stem: str = "diffusion_pytorch_model"


def _text(projection: bool) -> Family:
    config = functools.partial(clip.text_config, projection=projection)
    return Family(config, clip.text_shapes, lambda net, json: clip.TEXT_RULES, "model")


FAMILIES: dict[str, Family] = {
    "UNet2DConditionModel": Family(unet.condition_config, unet.shapes, unet.rules),
    "UNet2DModel": Family(unet.pixel_config, unet.shapes, unet.rules),
    "AutoencoderKL": Family(autoencoder.config, autoencoder.shapes, lambda net, json: autoencoder.RULES),
    "AutoencoderTiny": Family(
        autoencoder.tiny_config, autoencoder.tiny_shapes, lambda net, json: autoencoder.TINY_RULES
    ),
    "VQModel": Family(autoencoder.vq_config, autoencoder.vq_shapes, lambda net, json: autoencoder.VQ_RULES),
    "ControlNetModel": Family(controlnet.config, controlnet.shapes, controlnet.rules),
    "T2IAdapter": Family(adapter.config, adapter.shapes, lambda net, json: adapter.RULES),
    "CLIPVisionModelWithProjection": Family(
        clip.image_config, clip.image_shapes, lambda net, json: clip.IMAGE_RULES, "model"
    ),
    "StableDiffusionSafetyChecker": Family(
        clip.safety_config, clip.safety_shapes, lambda net, json: clip.SAFETY_RULES, "model"
    ),
    "CLIPTextModel": _text(projection=False),
    "CLIPTextModelWithProjection": _text(projection=True),
}


def family(name: str) -> Family:
    """What serves the class of that name.

    Raises:
      ValueError: if none does; lists those that work, the nearest first.
    """
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=2, cutoff=0.5)
        known = [*near, *(n for n in FAMILIES if n not in near)]
        raise ValueError(f"the class {name} is not supported: those that work are {', '.join(known)}")
    return FAMILIES[name]
