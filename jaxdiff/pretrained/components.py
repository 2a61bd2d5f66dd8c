"""The classes of other libraries that a pipeline can be made of, and what is ours for each."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxdiff.pretrained.rules import (
    Rules,
    adapter,
    autoencoder,
    bert,
    clip,
    controlnet,
    dalle_mini,
    dvae,
    normalizer,
    prior,
    t5,
    unet,
    unet_config,
    xlm,
)
from jaxdiff.typing import Params

Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """The functions that read and write the models of one class.

    Attributes:
      config: config.json -> our config.
      trace: (our config, config.json) -> the tree of our parameters, as shapes.
      rules: (our config, config.json) -> the table of names.
      stem: the file of its weights.
      harmless: the fields of config.json that change nothing, with the reason.
    """

    config: Callable[[Json], Any]
    trace: Callable[[Any, Json], Params]
    rules: Callable[[Any, Json], Rules]
    stem: str = "diffusion_pytorch_model"
    harmless: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def shapes(self, net: Any, json: Json) -> Params:
        """Returns the tree of our parameters, as shapes; each network is traced once."""
        fields = sorted((name, value) for name, value in json.items() if not name.startswith("_"))
        known = (self.trace, net, repr(fields))
        if known not in _TRACED:
            _TRACED[known] = self.trace(net, json)
        return _TRACED[known]


_TRACED: dict[Any, Params] = {}


def _text(projection: bool) -> Family:
    config = functools.partial(clip.text_config, projection=projection)
    harmless = clip.HARMLESS if projection else clip.PLAIN_TEXT_HARMLESS
    return Family(config, clip.text_shapes, lambda net, json: clip.TEXT_RULES, "model", harmless)


FAMILIES: dict[str, Family] = {
    "UNet2DConditionModel": Family(
        unet_config.condition_config, unet.shapes, unet.rules, harmless=unet_config.HARMLESS
    ),
    "UNet2DModel": Family(unet_config.pixel_config, unet.shapes, unet.rules, harmless=unet_config.HARMLESS),
    "AutoencoderKL": Family(
        autoencoder.config, autoencoder.shapes, lambda net, json: autoencoder.RULES, harmless=autoencoder.HARMLESS
    ),
    "AutoencoderTiny": Family(
        autoencoder.tiny_config,
        autoencoder.tiny_shapes,
        lambda net, json: autoencoder.TINY_RULES,
        harmless=autoencoder.TINY_HARMLESS,
    ),
    "VQModel": Family(
        autoencoder.vq_config,
        autoencoder.vq_shapes,
        lambda net, json: autoencoder.VQ_RULES,
        harmless=autoencoder.HARMLESS,
    ),
    dalle_mini.BART: Family(
        dalle_mini.config,
        dalle_mini.shapes,
        lambda net, json: dalle_mini.RULES,
        "flax_model",
        harmless=dalle_mini.HARMLESS,
    ),
    dalle_mini.VQGAN: Family(
        dalle_mini.vq_config,
        dalle_mini.vq_shapes,
        dalle_mini.vq_rules,
        "flax_model",
        harmless=dalle_mini.VQ_HARMLESS,
    ),
    dvae.KIND: Family(dvae.config, dvae.shapes, lambda net, json: dvae.RULES),
    "ControlNetModel": Family(controlnet.config, controlnet.shapes, controlnet.rules, harmless=controlnet.HARMLESS),
    "T2IAdapter": Family(adapter.config, adapter.shapes, lambda net, json: adapter.RULES),
    "CLIPVisionModelWithProjection": Family(
        clip.image_config, clip.image_shapes, lambda net, json: clip.IMAGE_RULES, "model", clip.HARMLESS
    ),
    "StableDiffusionSafetyChecker": Family(
        clip.safety_config, clip.safety_shapes, lambda net, json: clip.SAFETY_RULES, "model", clip.SAFETY_HARMLESS
    ),
    "PriorTransformer": Family(prior.config, prior.shapes, lambda net, json: prior.RULES, harmless=prior.HARMLESS),
    "UnCLIPTextProjModel": Family(
        prior.projection_config, prior.projection_shapes, lambda net, json: prior.PROJECTION_RULES
    ),
    "MultilingualCLIP": Family(xlm.config, xlm.shapes, lambda net, json: xlm.RULES, "model", xlm.HARMLESS),
    "StableUnCLIPImageNormalizer": Family(normalizer.config, normalizer.shapes, lambda net, json: normalizer.RULES),
    "T5EncoderModel": Family(t5.config, t5.shapes, t5.rules, "model", t5.HARMLESS),
    "LDMBertModel": Family(bert.config, bert.shapes, lambda net, json: bert.RULES, "model", bert.HARMLESS),
    "CLIPTextModel": _text(projection=False),
    "CLIPTextModelWithProjection": _text(projection=True),
}


def family(name: str) -> Family:
    """Returns what serves the class of that name.

    Raises:
      ValueError: if none does; lists those that work, the nearest first.
    """
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=2, cutoff=0.5)
        known = [*near, *(n for n in FAMILIES if n not in near)]
        raise ValueError(f"the class {name} is not supported: those that work are {', '.join(known)}")
    return FAMILIES[name]
