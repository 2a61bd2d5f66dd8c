"""model_index.json: the pipeline's class, its components, and its settings."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.pretrained import bert_tokenizer, clip_tokenizer, unigram_tokenizer
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.files import read_json
from jaxdiff.pretrained.rules import few
from jaxdiff.pretrained.rules.fields import Fields, brief, flag, one_of, settle, text, whole

PIPELINES = (
    *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
    *("StableDiffusionInstructPix2PixPipeline", "StableDiffusionUpscalePipeline", "StableDiffusionDepth2ImgPipeline"),
    *("StableDiffusionImageVariationPipeline", "StableDiffusionAdapterPipeline"),
    *("StableDiffusionControlNetPipeline", "StableDiffusionControlNetImg2ImgPipeline"),
    "StableDiffusionControlNetInpaintPipeline",
    *("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
    *("StableDiffusionXLInstructPix2PixPipeline", "StableDiffusionXLAdapterPipeline"),
    *("StableDiffusionXLControlNetPipeline", "StableDiffusionXLControlNetImg2ImgPipeline"),
    "StableDiffusionXLControlNetInpaintPipeline",
    *("DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "LDMPipeline"),
    *("LDMTextToImagePipeline", "LDMSuperResolutionPipeline"),
    *("UnCLIPPipeline", "UnCLIPImageVariationPipeline"),
    *("KandinskyV22PriorPipeline", "KandinskyV22PriorEmb2EmbPipeline"),
    *("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline"),
    *("KandinskyV22InpaintPipeline", "KandinskyV22ControlnetPipeline", "KandinskyV22CombinedPipeline"),
    "KandinskyV22ControlnetImg2ImgPipeline",
    *("KandinskyV22Img2ImgCombinedPipeline", "KandinskyV22InpaintCombinedPipeline"),
    *("KandinskyPriorPipeline", "KandinskyPipeline", "KandinskyImg2ImgPipeline", "KandinskyInpaintPipeline"),
    *("KandinskyCombinedPipeline", "KandinskyImg2ImgCombinedPipeline", "KandinskyInpaintCombinedPipeline"),
    *("StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline"),
    *("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline"),
    *("IFSuperResolutionPipeline", "IFImg2ImgSuperResolutionPipeline", "IFInpaintingSuperResolutionPipeline"),
)
"""The classes of the reference that are read; one class of ours serves, since networks tell what a model does."""
WITHOUT_WEIGHTS = (
    *("tokenizer", "scheduler", "feature_extractor", "image_processor", "low_res_scheduler"),
    "image_noising_scheduler",
)
OPTIONAL = ("safety_checker", "image_encoder", "feature_extractor", "image_processor", "watermarker", "depth_estimator")
_AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
_TEXTS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "MultilingualCLIP")
_TOKENIZERS = {
    "T5EncoderModel": unigram_tokenizer.T5,
    "MultilingualCLIP": unigram_tokenizer.XLM,
    "LDMBertModel": bert_tokenizer.CLASSES,
}
"""The tokenizers of text encoders that are not CLIP's."""
_ROLES = {
    "unet": ("UNet2DConditionModel", "UNet2DModel"),
    **dict.fromkeys(("vae", "vqvae"), _AUTOENCODERS),
    "movq": ("VQModel",),
    "prior": ("PriorTransformer",),
    **dict.fromkeys(("text_encoder", "text_encoder_2"), _TEXTS),
    "bert": ("LDMBertModel",),
    **dict.fromkeys(("tokenizer", "tokenizer_2"), (*clip_tokenizer.CLASSES, *unigram_tokenizer.CLASSES)),
    "controlnet": ("ControlNetModel",),
    "image_normalizer": ("StableUnCLIPImageNormalizer",),
    "adapter": ("T2IAdapter",),
}
"""The classes that a component may be of."""
_SETTINGS: Fields = {
    "_class_name": text(""),
    "force_zeros_for_empty_prompt": flag(True),
    "requires_aesthetics_score": flag(False),
    "max_noise_level": whole(350, 0),
    "is_cosxl_edit": one_of(False),
}
HARMLESS = {
    "requires_safety_checker": "of a warning",
    "add_watermarker": "of a mark that nobody sees, which the reference adds only where another package is installed",
}
"""Settings that change no picture here, and why."""
_GUIDANCE = {
    "StableUnCLIPPipeline": 10.0,
    "StableUnCLIPImg2ImgPipeline": 10.0,
    "IFPipeline": 7.0,
    "IFSuperResolutionPipeline": 4.0,
}


def guidance(kind: str) -> float | None:
    """Returns the scale that a pipeline of that class has by default; None: it is not guided."""
    if kind == "LDMTextToImagePipeline":
        return None
    return 4.0 if kind.startswith("Kandinsky") else _GUIDANCE.get(kind, 7.5)


def bare(name: str) -> str:
    """Returns the name that a component of a prior has in the prior's own directory, `tokenizer` of `prior_tokenizer`.

    Pipelines that have a prior beside their decoder call it so.
    """
    return name.removeprefix("prior_")


def read(path: Path, without: Collection[str]) -> dict[str, Any]:
    """Returns model_index.json, checked against what the directory has before anything is read.

    Raises:
      FileNotFoundError: if the directory is not a model, or lacks a component.
      ValueError: for classes and settings that are not supported; names them, with those that are.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no model directory at {path}")
    file = path / "model_index.json"
    if not file.is_file():
        one = "it is one component: use read_component"
        hint = one if (path / "config.json").is_file() else "nor is config.json there"
        raise FileNotFoundError(f"{path} is not a pipeline directory: model_index.json is missing ({hint})")
    index = read_json(file)
    for name, value in index.items():
        listed = isinstance(value, str | list | dict) and name not in _SETTINGS and name not in HARMLESS
        if listed and not name.startswith("_") and not _is_entry(value):
            raise ValueError(f"{file}: {brief(name)} is {brief(value)}: expected [library, class]")
    settle(str(file), {k: v for k, v in index.items() if k.startswith("_") or not _is_entry(v)}, _SETTINGS, HARMLESS)
    if not index.get("_class_name"):
        raise ValueError(f"{file} has no _class_name: it is not a pipeline's")
    named = entries(index, without)
    for name, kind in named.items():
        own = bare(name)
        if not own.startswith(WITHOUT_WEIGHTS) and not name.endswith("scheduler") and own not in OPTIONAL:
            family(kind)
        known = _ROLES.get(own, (kind,))
        if own.startswith("tokenizer"):
            alone = "T5EncoderModel" if str(index["_class_name"]).startswith("IF") else ""
            encoder = named.get(name.replace("tokenizer", "text_encoder"), named.get("bert", alone))
            known = _TOKENIZERS.get(encoder, clip_tokenizer.CLASSES)
        if kind not in known:
            raise ValueError(
                f"{file}: {name} is a {kind}, which is not supported: those that work are {', '.join(known)}"
            )
        config = "scheduler_config.json" if name.endswith("scheduler") else "config.json"
        if not (path / name).is_dir() and not (path / config).is_file() and own not in OPTIONAL:
            raise FileNotFoundError(f"{path}: model_index.json names {name} ({kind}), but that folder is missing")
    if index["_class_name"] not in PIPELINES:
        near = difflib.get_close_matches(index["_class_name"], PIPELINES, n=3, cutoff=0.5)
        named_so = [*near, *(name for name in PIPELINES if name not in near)]
        class_name = brief(index["_class_name"])
        raise ValueError(f"{file}: _class_name={class_name} is not supported: those that work are {few(named_so)}")
    if not any(name.endswith("scheduler") for name in named):
        raise ValueError(f"{file} names no scheduler: without it nothing tells how the model was trained")
    return index


def entries(index: Mapping[str, Any], without: Collection[str]) -> dict[str, str]:
    """Returns the components that the pipeline has and that are wanted, with their classes."""
    named = {name: entry[1] for name, entry in index.items() if not name.startswith("_") and _is_entry(entry)}
    return {name: kind for name, kind in named.items() if kind is not None and name not in without}


def check(kind: str, index: Mapping[str, Any], numbers: int) -> None:
    """Refuses a setting that tells another tale of a Stable Diffusion XL's U-Net than its width does.

    Args:
      kind: the pipeline's class.
      index: model_index.json.
      numbers: how many the U-Net takes about a picture's size: 5 with an aesthetic score, 6 without.
    """
    scored = index.get("requires_aesthetics_score")
    if scored is not None and "XL" in kind and numbers and scored != (numbers == 5):
        raise ValueError(
            f"model_index.json says requires_aesthetics_score={scored}, but its unet takes {numbers} numbers about "
            "the size, and with a score there are 5"
        )


def _is_entry(value: Any) -> bool:
    """Returns whether a value is [library, class], or [null, null]."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, str | None) for one in value)
