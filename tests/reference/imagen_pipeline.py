"""Pictures of small pipelines of DeepFloyd IF (diffusers 0.42.1) with weights by formula: imagen_pipeline.npz.

    python tests/reference/imagen_pipeline.py

Every draw of noise of one shape is the same array by formula, scaled, so that ancestral sampling can be compared. The
file keeps configs and shapes of the parts, the schedulers' configs, and two pictures for each case as 16-bit numbers.
"""

import json
import pathlib
import sys
import tempfile

import diffusers
import imagen_unet
import numpy as np
import torch
import transformers
from sd_weights import noise, take

HERE = pathlib.Path(__file__)
IF = {
    "variance_type": "learned_range",
    "beta_schedule": "squaredcos_cap_v2",
    "thresholding": True,
    "dynamic_thresholding_ratio": 0.95,
}
TEXT = {"vocab_size": 400, "d_model": 24, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}
PROMPTS, NEGATIVE = ["A red heart", "seven birds!"], "ugly"


def picture(name, side):
    return ((noise(name, (2, side, side, 3)) + 1) * 127.5).round().astype(np.uint8)


def tokenizer():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tokenizer.json"
        path.write_bytes(bytes(np.load(HERE.with_name("t5.npz"))["json"]))
        return transformers.T5Tokenizer.from_pretrained(folder)


def fixed_noise():
    """Replaces what diffusers draws: the low resolution picture's noise is drawn before any step."""

    def draw(shape, **options):
        return torch.tensor(noise("drawn", tuple(shape)) * np.float32(1.7))

    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and hasattr(module, "randn_tensor"):
            module.randn_tensor = draw


@torch.no_grad()
def main():
    text = transformers.T5EncoderModel(transformers.T5Config(**TEXT, feed_forward_proj="gated-gelu"))
    parts = {
        "text_encoder": take(text),
        "if one": take(diffusers.UNet2DConditionModel(**imagen_unet.CONDITION["if one"], sample_size=8)),
        "if two": take(diffusers.UNet2DConditionModel(**imagen_unet.CONDITION["if two"], sample_size=16)),
    }
    shared = {"tokenizer": tokenizer(), "text_encoder": parts["text_encoder"]}
    shared |= {"safety_checker": None, "feature_extractor": None, "watermarker": None, "requires_safety_checker": False}
    one = {"unet": parts["if one"], "scheduler": diffusers.DDPMScheduler(**IF, sample_max_value=1.5), **shared}
    low = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    two = {"unet": parts["if two"], "scheduler": diffusers.DDPMScheduler(**IF), **shared}
    two["image_noising_scheduler"] = low
    told = {"negative_prompt": [NEGATIVE] * 2, "num_inference_steps": 5, "guidance_scale": 2.0, "output_type": "np"}
    image = lambda name, side: torch.tensor(picture(name, side) / np.float32(127.5) - 1).permute(0, 3, 1, 2)
    calls = {
        "text": (diffusers.IFPipeline, one, {}),
        "image": (diffusers.IFImg2ImgPipeline, one, {"image": image("image", 8), "strength": 0.6}),
        "larger": (diffusers.IFSuperResolutionPipeline, two, {"image": image("small", 8), "noise_level": 250}),
        "larger image": (
            diffusers.IFImg2ImgSuperResolutionPipeline,
            two,
            {"image": image("small", 8), "original_image": image("image", 16), "noise_level": 20, "strength": 0.6},
        ),
    }
    fixed_noise()  # when all classes are loaded
    index, arrays = {"parts": {}, "schedulers": {}}, {}
    for name, part in parts.items():
        config = part.config.to_diff_dict() if name == "text_encoder" else dict(part.config)
        # of the two names of T5's embedding `take` filled the one that comes last
        shapes = {n: list(v.shape) for n, v in part.state_dict().items() if n != "shared.weight"}
        index["parts"][name] = {"class": type(part).__name__, "config": config, "shapes": shapes}
    for name, parts_of in (("if one", one), ("if two", two)):
        index["schedulers"][name] = {"_class_name": "DDPMScheduler", **parts_of["scheduler"].config}
    index["schedulers"]["low"] = {"_class_name": "DDPMScheduler", **low.config}
    for name, (kind, parts_of, inputs) in calls.items():
        pipe = kind(**parts_of)
        pipe.set_progress_bar_config(disable=True)
        made = pipe(prompt=PROMPTS, **told, **inputs)
        pictures = made.images if hasattr(made, "images") else made[0]
        arrays[name] = (np.asarray(pictures) * 65535).round().astype(np.uint16)
        print(name, arrays[name].shape, arrays[name].std())
    packed = np.frombuffer(json.dumps(index, default=lambda x: x.tolist()).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("imagen_pipeline.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
