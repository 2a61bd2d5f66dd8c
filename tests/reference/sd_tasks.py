"""Pictures of small diffusers pipelines (0.42.1) with weights by formula, for each task and several samplers.

    python tests/reference/sd_tasks.py

Writes sd_tasks.npz: configs and shapes of the parts, for each task its parts and options, and two pictures for each
sampler as 16-bit numbers. All noise is by formula; where an encoder's Gaussian is sampled, its mean is taken, as
jaxdiff does.
"""

import json
import pathlib
import sys
import tempfile

import diffusers
import numpy as np
import sd_lora
import sd_parts
import sd_pipeline
import sd_unet
import torch
import transformers
from safetensors.torch import save_file
from sd_weights import noise, take

HERE = pathlib.Path(__file__)
SAMPLERS = {name: sd_pipeline.SAMPLERS[name] for name in ("ddim", "pndm", "euler", "dpmpp_2m karras", "unipc")}
PROMPTS, NEGATIVE, GUIDANCE = sd_pipeline.PROMPTS, sd_pipeline.NEGATIVE, sd_pipeline.GUIDANCE
WHOLE = {"steps": 10}
TAIL = {"steps": 10, "strength": 0.6}
# plms has one call more than steps; diffusers' own cannot start in the middle (it repeats no call then)
PLMS = {10: {"steps": 9}, 6: {"steps": 5, "strength": 1.0}}


def unet(name, **more):
    return take(diffusers.UNet2DConditionModel(**{**sd_unet.CONDITION[name], "sample_size": 8, **more}))


def text(width, projection=0, **more):
    numbers = {**sd_pipeline.TEXT, "hidden_size": width, **more}
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return take(kind(transformers.CLIPTextConfig(**numbers, **({"projection_dim": projection} if projection else {}))))


def vae(levels):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
    config = {**sd_parts.AUTOENCODERS["sd"], **blocks, "block_out_channels": (16, 32, 32)[:levels]}
    config |= {"scaling_factor": 0.08333} if levels == 3 else {}
    return take(diffusers.AutoencoderKL(**config))


def control(name):
    shared = {**sd_unet.CONDITION["sd1"], **sd_parts.CONTROLS[name]}
    shared.pop("up_block_types")
    return take(diffusers.ControlNetModel(**shared))


def parts():
    xl = {"in_channels": 4}
    return {
        "unet": unet("sd1"),
        "unet_inpaint": unet("inpaint"),
        "unet_upscale": unet("upscale"),
        "unet_edit": unet("sd1", in_channels=8),
        "unet_xl": unet("sdxl", **xl),
        "unet_refiner": unet("sdxl", projection_class_embeddings_input_dim=20 + 5 * 8),
        "vae": vae(2),
        "vae_upscale": vae(3),
        "text": text(24),
        "text_l": text(12, num_hidden_layers=3),
        "text_g": text(12, 20, num_hidden_layers=3, hidden_act="gelu"),
        "text_r": text(24, 20, num_hidden_layers=3, hidden_act="gelu"),
        "control": control("plain"),
        "control_2": control("other"),
    }


def picture(name, side=16):
    """uint8 [2 h w 3]."""
    return ((noise(name, (2, side, side, 3)) + 1) * 127.5).round().astype(np.uint8)


def tensor(picture):
    """In [0, 1], channels first."""
    return torch.tensor(picture.astype(np.float32) / 255).permute(0, 3, 1, 2)


def mask():
    return (noise("mask", (2, 16, 16, 1)) > 0.2).astype(np.uint8)


SD1 = {"unet": "unet", "vae": "vae", "text_encoder": "text"}
XL = {"unet": "unet_xl", "vae": "vae", "text_encoder": "text_l", "text_encoder_2": "text_g"}
BARE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
# task -> (pipeline, its parts, inputs by our names, options)
TASKS = {
    "image": ("StableDiffusionImg2ImgPipeline", SD1, {"image"}, TAIL),
    "inpaint": ("StableDiffusionInpaintPipeline", SD1, {"image", "mask"}, TAIL),
    "inpaint 9": ("StableDiffusionInpaintPipeline", {**SD1, "unet": "unet_inpaint"}, {"image", "mask"}, WHOLE),
    "upscale": (
        "StableDiffusionUpscalePipeline",
        {**SD1, "unet": "unet_upscale", "vae": "vae_upscale"},
        {"small"},
        {**WHOLE, "noise_level": 20},
    ),
    "edit": (
        "StableDiffusionInstructPix2PixPipeline",
        {**SD1, "unet": "unet_edit"},
        {"image"},
        {**WHOLE, "picture_guidance": 1.8},
    ),
    "control": (
        "StableDiffusionControlNetPipeline",
        {**SD1, "controlnet": "control"},
        {"hint"},
        {**WHOLE, "hint_weights": [0.7]},
    ),
    "two controls": (
        "StableDiffusionControlNetPipeline",
        {**SD1, "controlnet": ["control", "control_2"]},
        {"hint", "hint 2"},
        {**WHOLE, "hint_weights": [0.7, 1.2]},
    ),
    "lora": ("StableDiffusionPipeline", SD1, set(), {**WHOLE, "lora_weights": [0.6]}),
    "xl": ("StableDiffusionXLPipeline", XL, set(), WHOLE),
    "xl without negative": ("StableDiffusionXLPipeline", XL, set(), {**WHOLE, "negative": None}),
    "xl clip skip": ("StableDiffusionXLPipeline", XL, set(), {**WHOLE, "clip_skip": 1, "negative": None}),
    "refiner": (
        "StableDiffusionXLImg2ImgPipeline",
        {"unet": "unet_refiner", "vae": "vae", "text_encoder_2": "text_r"},
        {"image"},
        TAIL,
    ),
}
FEW = {"two controls": ["euler"], "xl clip skip": ["ddim"], "xl without negative": ["euler"]}
NAMES = {"steps": "num_inference_steps", "picture_guidance": "image_guidance_scale"}


def fixed_noise(side):
    """Replaces what diffusers draws."""

    def draw(shape, **options):
        kind = "first" if shape[1] == 4 else "low"
        return torch.tensor(noise(kind, tuple(shape)) * np.float32(1.7))

    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and hasattr(module, "randn_tensor"):
            zeros = lambda shape, **options: torch.zeros(shape)
            module.randn_tensor = zeros if name.endswith("autoencoders.vae") else draw


def build(task, made):
    kind, names, _, _ = TASKS[task]
    chosen = {part: [made[n] for n in name] if isinstance(name, list) else made[name] for part, name in names.items()}
    if "XL" in kind:
        absent = {"text_encoder": None, "tokenizer": None} if "text_encoder" not in names else {}
        words = {"tokenizer": sd_pipeline.tokenizer(), "tokenizer_2": sd_pipeline.tokenizer()}
        more = {**words, **absent, "add_watermarker": False}
        more |= {"requires_aesthetics_score": True} if task == "refiner" else {}
    elif "Upscale" in kind:
        low = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        more = {"tokenizer": sd_pipeline.tokenizer(), "low_res_scheduler": low, "max_noise_level": 49}
    else:
        more = {"tokenizer": sd_pipeline.tokenizer(), **BARE}
    pipe = getattr(diffusers, kind)(**chosen, scheduler=SAMPLERS["ddim"], **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def given(inputs):
    """Pictures by diffusers' names."""
    both = [tensor(picture(name)) for name in ("hint", "hint 2") if name in inputs]
    found = {}
    if "image" in inputs:
        found["image"] = tensor(picture("image"))
    if "small" in inputs:
        found["image"] = tensor(picture("small", 8))
    if "mask" in inputs:
        found["mask_image"] = tensor(mask() * 255)
    if both:
        found["image"] = both if len(both) > 1 else both[0]
    return found


def lora_rows(made):
    """Of the U-Net in PEFT's form."""
    return sd_lora.file("peft", made["unet"], sd_lora.ATTENTION)


@torch.no_grad()
def main():
    made = parts()
    index = {"parts": {}, "tasks": {}, "schedulers": {}, "lora": {n: list(s) for n, s in lora_rows(made).items()}}
    for name, part in made.items():
        config = part.config.to_diff_dict() if name.startswith("text") else dict(part.config)
        shapes = {n: list(v.shape) for n, v in part.state_dict().items()}
        index["parts"][name] = {"class": type(part).__name__, "config": config, "shapes": shapes}
    arrays = {}
    for task, (kind, names, inputs, options) in TASKS.items():
        index["tasks"][task] = {"kind": kind, "parts": names, "inputs": sorted(inputs), "options": options}
        pipe = build(task, made)
        fixed_noise(16)
        if task == "lora":
            with tempfile.TemporaryDirectory() as folder:
                save_file(sd_lora.tensors(lora_rows(made)), f"{folder}/pytorch_lora_weights.safetensors")
                pipe.load_lora_weights(folder, adapter_name="one")
            pipe.set_adapters(["one"], options["lora_weights"])
        for name in FEW.get(task, SAMPLERS):
            pipe.scheduler = SAMPLERS[name]
            index["schedulers"][name] = {"_class_name": type(pipe.scheduler).__name__, **pipe.scheduler.config}
            calls = round(options["steps"] * options.get("strength", 1))
            now = {**options, **(PLMS[calls] if name == "pndm" else {})}
            theirs = {
                NAMES.get(k, k): v for k, v in now.items() if k not in ("lora_weights", "hint_weights", "negative")
            }
            if "hint_weights" in now:
                weights = now["hint_weights"]
                theirs["controlnet_conditioning_scale"] = weights if len(weights) > 1 else weights[0]
            if "negative" not in now:
                theirs["negative_prompt"] = [NEGATIVE] * 2
            if not inputs:
                theirs |= {"height": 16, "width": 16}
            if kind == "StableDiffusionInpaintPipeline":
                theirs |= {"height": 16, "width": 16}
            pictures = pipe(PROMPTS, guidance_scale=GUIDANCE, output_type="np", **given(inputs), **theirs).images
            arrays[f"{task}/{name}"] = (np.asarray(pictures) * 65535).round().astype(np.uint16)
            print(task, name, pictures.shape, pictures.std())
        if task == "lora":
            pipe.unload_lora_weights()
    packed = np.frombuffer(json.dumps(index, default=lambda x: x.tolist()).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("sd_tasks.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
