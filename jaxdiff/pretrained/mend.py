"""Repairs of old model directories' configs, as diffusers' pipelines make them on loading.

The first releases of Stable Diffusion came with scheduler configs that lack steps_offset and clip_sample, whose
defaults are those of pixel models. The reference's pipelines set them right, each those that it knows of; so do we.

Source: diffusers 0.42.1, `__init__` of the pipelines named here.
"""

from collections.abc import Mapping
from typing import Any

from jaxdiff.pretrained.components import Json

_SCHEDULER: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {"steps_offset": 1, "clip_sample": False},
    "StableDiffusionImg2ImgPipeline": {"steps_offset": 1, "clip_sample": False},
    "StableDiffusionInpaintPipeline": {"steps_offset": 1, "skip_prk_steps": True},
}
"""The fields of scheduler_config.json that a pipeline sets, in the classes that have them."""
_DEFAULTS = {
    "clip_sample": {
        "DDPMScheduler": True,
        "DDIMScheduler": True,
        "LCMScheduler": False,
        "HeunDiscreteScheduler": False,
    },
    "skip_prk_steps": {"PNDMScheduler": False},
}
"""The classes that have a field, and what its absence means there; steps_offset has `_WITHOUT_OFFSET` instead."""
_WITHOUT_OFFSET = ("EDM", "FlowMatch", "CM", "IPNDM", "KarrasVe", "ScoreSde")
_SMALL = {*_SCHEDULER, "StableDiffusionImageVariationPipeline", "StableDiffusionDepth2ImgPipeline"}
_CLASSES = {"DDIMPipeline": "DDIMScheduler", "PNDMPipeline": "PNDMScheduler"}
"""Pipelines that sample by their own class, whatever the config was saved from."""


def scheduler(pipeline: str, config: Json) -> dict[str, Any]:
    """Returns the scheduler_config.json that a pipeline of that class works with."""
    mended = dict(config)
    if pipeline in _CLASSES:
        mended["_class_name"] = _CLASSES[pipeline]
    kind = str(mended.get("_class_name"))
    for field, value in _SCHEDULER.get(pipeline, {}).items():
        known = _DEFAULTS.get(field, {} if kind.startswith(_WITHOUT_OFFSET) else {kind: 0})
        absent = mended.get("_use_default_values")
        said = {} if isinstance(absent, list) and field in absent else mended
        if kind in known and said.get(field, known[kind]) != value:
            mended = changed(mended, **{field: value})
    return mended


def changed(config: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Returns a config of diffusers with these fields, of which it no longer says that they are its class' defaults."""
    fields_now = {**config, **fields}
    if isinstance(fields_now.get("_use_default_values"), list):
        fields_now["_use_default_values"] = [name for name in fields_now["_use_default_values"] if name not in fields]
    return fields_now


def component(pipeline: str, name: str, json: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config.json that a pipeline of that class works with, of its component `name`."""
    size, version = json.get("sample_size"), str(json.get("_diffusers_version", ""))
    if name == "unet" and pipeline in _SMALL and isinstance(size, int) and size < 64 and _before_0_9(version):
        return {**json, "sample_size": 64}
    if name == "vae" and pipeline == "StableDiffusionUpscalePipeline":
        return {**json, "scaling_factor": 0.08333}
    if name == "vqvae" and pipeline == "LDMSuperResolutionPipeline":
        return {**json, "scaling_factor": 1.0}  # whose latents that pipeline does not scale
    return dict(json)


def _before_0_9(version: str) -> bool:
    parts = version.split(".")
    return len(parts) > 1 and parts[0] == "0" and parts[1].isdigit() and int(parts[1]) < 9
