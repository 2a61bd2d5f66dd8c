"""The fields that each class of the reference reads from a config, with their defaults, and what its pipelines change.

    PYTHONPATH=. python tests/reference/configs.py

Writes configs.json: `fields` is class -> {field: default}, of diffusers 0.42.1 and transformers 5, and `mended` lists
[component, config, what changes in it, the pipelines that change it so] for configs of old model directories.
"""

import inspect
import itertools
import json
import logging
import pathlib
import warnings

import diffusers
import torch
import transformers
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

HERE = pathlib.Path(__file__)
MODELS = (
    *("UNet2DConditionModel", "UNet2DModel", "AutoencoderKL", "AutoencoderTiny", "VQModel"),
    *("ControlNetModel", "T2IAdapter", "PriorTransformer"),
)
PIPELINES = (
    *("DDPMPipeline", "DDIMPipeline", "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
    *("StableDiffusionInpaintPipeline", "StableDiffusionInstructPix2PixPipeline", "StableDiffusionUpscalePipeline"),
    *("StableDiffusionImageVariationPipeline", "StableDiffusionControlNetPipeline", "StableDiffusionAdapterPipeline"),
    *("StableDiffusionControlNetImg2ImgPipeline", "StableDiffusionControlNetInpaintPipeline"),
    *("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
    *("StableDiffusionXLInstructPix2PixPipeline", "StableDiffusionXLControlNetPipeline"),
    *("StableDiffusionXLControlNetImg2ImgPipeline", "StableDiffusionXLControlNetInpaintPipeline"),
    "StableDiffusionXLAdapterPipeline",
)
LATER = (
    *("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline", "IFSuperResolutionPipeline"),
    *("IFImg2ImgSuperResolutionPipeline", "IFInpaintingSuperResolutionPipeline"),
)
"""Pipelines that change no config."""
SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler")
TINY = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "mid_block_type": None,
}
CONTROL = {
    "block_out_channels": [8, 8],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
}
OLD = (
    {},
    {"steps_offset": 1},
    {"clip_sample": False},
    {"clip_sample": True, "steps_offset": 0},
    {"skip_prk_steps": True},
)


def parameters(function):
    """Names and defaults."""
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in found if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def without(pipeline):
    """Its components, all None."""
    own = parameters(getattr(diffusers, pipeline).__init__)
    return {k: None for k, v in own.items() if not isinstance(v, bool | int)}


def fields():
    found = {name: parameters(getattr(diffusers, name).__init__) for name in MODELS}
    found["T2IAdapter"]["adapter_type"] = "full_adapter"
    found["UnCLIPTextProjModel"] = {
        name: None if value is inspect.Parameter.empty else value
        for name, value in parameters(UnCLIPTextProjModel.__init__).items()
    }
    found["StableUnCLIPImageNormalizer"] = parameters(StableUnCLIPImageNormalizer.__init__)
    found["MCLIPConfig"] = MCLIPConfig().to_dict()
    found["LDMBertConfig"] = LDMBertConfig().to_dict()
    for name in ("CLIPTextConfig", "CLIPVisionConfig", "CLIPConfig", "T5Config"):
        found[name] = getattr(transformers, name)().to_dict()
    for name in (*PIPELINES, *LATER):
        own = parameters(getattr(diffusers, name).__init__)
        # what is a component has no value of its own
        found[name] = {k: v for k, v in own.items() if isinstance(v, bool | int) or k == "add_watermarker"}
    found["CLIPImageProcessor"] = json.loads(transformers.CLIPImageProcessor().to_json_string())
    return found


def mended():
    """Rows of component, config, what the pipeline changes in it, and pipeline."""
    for name, kind, old in itertools.product(PIPELINES, SCHEDULERS, OLD):
        scheduler = getattr(diffusers, kind)
        old = {k: v for k, v in old.items() if k in parameters(scheduler.__init__)}
        pipe = getattr(diffusers, name)(**{**without(name), "scheduler": scheduler(**old)})
        after = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
        changed = changes({**scheduler(**old).config, "_class_name": kind}, after)
        yield "scheduler", {"_class_name": kind, **old}, changed, name
    for name, size, version in itertools.product(PIPELINES[2:], (32, 64), ("0.2.4", "0.8.1", "0.9.0", "0.42.1")):
        unet = diffusers.UNet2DConditionModel(**TINY, sample_size=size)
        unet.register_to_config(_diffusers_version=version)
        pipe = getattr(diffusers, name)(**{**without(name), "unet": unet})
        config = {"sample_size": size, "_diffusers_version": version}
        yield "unet", config, changes(config, dict(pipe.unet.config, _class_name=None)), name
    for name, scale in itertools.product(PIPELINES[2:], (0.18215, 0.08333)):
        vae = diffusers.AutoencoderKL(scaling_factor=scale)
        pipe = getattr(diffusers, name)(**{**without(name), "vae": vae})
        yield (
            "vae",
            {"scaling_factor": scale},
            changes({"scaling_factor": scale}, dict(pipe.vae.config, _class_name=None)),
            name,
        )


def changes(before, after):
    """The fields that pipelines know of and have changed; of another class, the defaults follow by themselves."""
    names = ("steps_offset", "clip_sample", "skip_prk_steps", "sample_size", "scaling_factor")
    names = ["_class_name"] if before.get("_class_name") != after.get("_class_name") else names
    return {k: after[k] for k in names if k in before and after[k] != before[k]}


def controlnet():
    """The original names of a ControlNet's tensors, and those that diffusers' converter gives them."""
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    from jaxdiff.pretrained.components import family
    from jaxdiff.pretrained.rules import compvis, to_tensors

    config = {**CONTROL, "conditioning_embedding_out_channels": [4, 4, 4, 4]}
    one = family("ControlNetModel")
    net = one.config(config)
    original = to_tensors(one.shapes(net, config), compvis.controlnet_rules(net, config))
    tagged = {f"control_model.{name}": torch.full((1,), float(i)) for i, name in enumerate(original)}
    converted = convert_controlnet_checkpoint(dict(tagged), config)
    assert converted.keys() == diffusers.ControlNetModel(**config).state_dict().keys()
    names = list(original)
    return {"config": config, "names": {names[int(x.item())]: name for name, x in converted.items()}}


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    read = ",\n".join(f"{json.dumps(name)}: {json.dumps(one, default=str)}" for name, one in fields().items())
    rows = {}
    for *row, name in mended():
        rows.setdefault(json.dumps(row), {})[name] = None
    changed = ",\n".join(f"{row[:-1]}, {json.dumps(list(names))}]" for row, names in rows.items())
    HERE.with_suffix(".json").write_text(
        f'{{"fields": {{\n{read}\n}},\n"mended": [\n{changed}\n],\n"controlnet": {json.dumps(controlnet())}}}\n'
    )


if __name__ == "__main__":
    main()
