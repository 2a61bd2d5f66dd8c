"""A latent model that was trained here, as diffusers knows it: a StableDiffusionPipeline, or an LDMPipeline."""

from collections.abc import Mapping
from typing import Any

from jaxdiff.models.text_clip import ClipTextConfig
from jaxdiff.pretrained.pixels import scheduler_json
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import unet_config


def published(native: Bundle) -> Bundle:
    """Returns a model of our own training, with an autoencoder, as `write_directory` takes it.

    Raises:
      ValueError: if diffusers has no class for it: a text encoder that was trained with it, a class or another picture
        that steers it; or if its classes cannot be such networks, or such a process.
    """
    process, parts = native.native, native.components
    assert process is not None
    if "unet" not in parts:
        raise ValueError("this run is an autoencoder and no model that samples: diffusers has no pipeline for it")
    net, params, vae = parts["unet"].config, parts["unet"].params, parts["vae"]
    text = parts.get("text_encoder")
    clip = text is not None and isinstance(text.config, ClipTextConfig)
    steered = [
        what
        for what, there in (
            ("a text encoder that was trained with it", text is not None and not clip),
            ("a class", bool(native.labels)),
            ("another picture", "picture" in native.index),
        )
        if there
    ]
    if steered:
        raise ValueError(f"diffusers has no pipeline in latents that is steered by {' or '.join(steered)}")
    channels = params["conv_in"]["kernel"].shape[2]
    schedulers: dict[str, Mapping[str, Any]] = {
        "scheduler": scheduler_json(process, "DDIMScheduler") | {"timestep_spacing": "trailing"}
    }
    size = {"sample_size": parts["unet"].json["sample_size"]}
    index: dict[str, Any] = {"scheduler": ["diffusers", "DDIMScheduler"]}
    if text is None:
        part = Component("UNet2DModel", {**unet_config.pixel_json(net, channels), **size}, net, params)
        index |= {"_class_name": "LDMPipeline", "unet": ["diffusers", part.kind], "vqvae": ["diffusers", vae.kind]}
        return Bundle("LDMPipeline", index, {"unet": part, "vqvae": vae}, {}, schedulers)
    if vae.kind != "AutoencoderKL":
        raise ValueError(f"a StableDiffusionPipeline has an AutoencoderKL, and this run a {vae.kind}")
    json = unet_config.condition_json(net, channels, text.config.width)
    part = Component("UNet2DConditionModel", {**json, **size}, net, params)
    index |= {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", part.kind]}
    index |= {"vae": ["diffusers", vae.kind], "text_encoder": ["transformers", text.kind]}
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    components = {"unet": part, "vae": vae, "text_encoder": text}
    return Bundle("StableDiffusionPipeline", index, components, dict(native.tokenizers), schedulers)
