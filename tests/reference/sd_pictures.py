"""Pictures of small diffusers pipelines (0.42.1) that a picture steers beside or instead of the prompt.

    python tests/reference/sd_pictures.py

Writes sd_pictures.npz: a T2I-adapter, an IP-adapter and variations, on the parts of sd_tasks.py.
"""

import json
import pathlib

import diffusers
import numpy as np
import sd_image
import sd_tasks
import torch
import transformers
from sd_weights import noise, take
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

HERE = pathlib.Path(__file__)
SIDE = 16


def vision(width):
    config = transformers.CLIPVisionConfig(**sd_image.VISION, projection_dim=width, hidden_act="gelu")
    return take(transformers.CLIPVisionModelWithProjection(config))


def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


@torch.no_grad()
def main():
    parts = {
        "unet": sd_tasks.unet("sd1"),
        "vae": sd_tasks.vae(2),
        "text": sd_tasks.text(24),
        "adapter": take(diffusers.T2IAdapter(**sd_image.ADAPTERS["adapter"])),
        "vision": vision(24),
        "vision_ip": vision(12),
    }
    index = {"parts": {}}
    for name, part in parts.items():
        config = dict(part.config) if isinstance(part.config, dict) else part.config.to_diff_dict()
        config |= {"_class_name": type(part).__name__}
        shapes = {n: list(v.shape) for n, v in part.state_dict().items()}
        index["parts"][name] = {"class": type(part).__name__, "config": config, "shapes": shapes}
    shared = {"scheduler": sd_tasks.SAMPLERS["ddim"], "vae": parts["vae"], "unet": parts["unet"]}
    words = {"text_encoder": parts["text"], "tokenizer": sd_tasks.sd_pipeline.tokenizer()}
    options = {"num_inference_steps": 5, "guidance_scale": sd_tasks.GUIDANCE, "output_type": "np"}
    options["latents"] = torch.tensor(noise("first", (2, 4, 8, 8)) * np.float32(1.7))
    told = {"prompt": sd_tasks.PROMPTS, "negative_prompt": [sd_tasks.NEGATIVE] * 2}
    seen = processor()(list(sd_tasks.picture("seen", 40)), return_tensors="pt")["pixel_values"]
    arrays = {}

    pipe = diffusers.StableDiffusionAdapterPipeline(**shared, **words, adapter=parts["adapter"], **sd_tasks.BARE)
    hint = sd_tasks.tensor(sd_tasks.picture("hint"))
    arrays["adapter"] = pipe(**told, **options, image=hint, adapter_conditioning_scale=0.7, height=16, width=16).images

    pipe = diffusers.StableDiffusionImageVariationPipeline(
        **shared, image_encoder=parts["vision"], feature_extractor=processor(), safety_checker=None,
        requires_safety_checker=False,
    )  # fmt: skip
    arrays["variation"] = pipe(seen, **options, height=16, width=16).images

    index["ip"] = {name: list(shape) for name, shape in sd_image.ip_shapes(parts["unet"]).items()}
    sd_image.add_ip(parts["unet"], index["ip"])
    pipe = diffusers.StableDiffusionPipeline(
        **shared, **words, image_encoder=parts["vision_ip"], feature_extractor=processor(), safety_checker=None,
        requires_safety_checker=False,
    )  # fmt: skip
    vectors = parts["vision_ip"](seen[:1]).image_embeds[:, None]  # one picture for all: it repeats them by prompts
    embeds = [torch.cat([torch.zeros_like(vectors), vectors])]
    arrays["ip"] = pipe(**told, **options, ip_adapter_image_embeds=embeds, height=16, width=16).images

    for name, array in arrays.items():
        print(name, array.shape, array.std())
        arrays[name] = (np.asarray(array) * 65535).round().astype(np.uint16)
    packed = np.frombuffer(json.dumps(index, default=lambda x: x.tolist()).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("sd_pictures.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
