"""Outputs of small image encoders, a safety checker, T2I- and IP-adapters (diffusers 0.42.1): sd_image.npz.

python tests/reference/sd_image.py
"""

import pathlib

import numpy as np
import sd_unet
import torch
from diffusers import T2IAdapter, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from sd_weights import noise, save, take, weights
from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

HERE = pathlib.Path(__file__)
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
ADAPTERS = {
    "adapter": {"channels": (32, 64), "num_res_blocks": 1, "downscale_factor": 2},
    "adapter_xl": {
        "channels": (32, 64),
        "num_res_blocks": 1,
        "downscale_factor": 4,
        "adapter_type": "full_adapter_xl",
    },
}


class Holder:
    """What `save` asks of a model, for tensors that are no module."""

    def __init__(self, shapes):
        self.config, self.shapes = {}, shapes

    def state_dict(self):
        return {name: torch.zeros(shape) for name, shape in self.shapes.items()}


def ip_shapes(unet):
    """Of a plain IP-adapter for pictures' vectors of width 12."""
    shapes = {"image_proj.proj.weight": (4 * 24, 12), "image_proj.proj.bias": (4 * 24,)}
    shapes |= {"image_proj.norm.weight": (24,), "image_proj.norm.bias": (24,)}
    for n, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
            shapes |= {f"ip_adapter.{n}.to_k_ip.weight": (width, 24), f"ip_adapter.{n}.to_v_ip.weight": (width, 24)}
    return shapes


def add_ip(unet, shapes):
    parts = {"image_proj": {}, "ip_adapter": {}}
    for name, array in weights(shapes).items():
        part, _, rest = name.partition(".")
        parts[part][rest] = torch.tensor(array)
    unet._load_ip_adapter_weights([parts])
    for one in unet.attn_processors.values():
        if hasattr(one, "scale"):
            one.scale = [0.6]


@torch.no_grad()
def main():
    cases = {}
    pixels = torch.tensor(noise("pixels", (6, 3, 16, 16)))
    model = take(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=24, hidden_act="gelu")))
    out = model(pixels, output_hidden_states=True)
    cases["image"] = (model, {"vector": out.image_embeds, "earlier": out.hidden_states[-2]})
    model = take(StableDiffusionSafetyChecker(CLIPConfig(vision_config=VISION, projection_dim=24)))
    # thresholds near the cosines, so that some pictures are above and some below
    model.concept_embeds_weights.copy_(0.5 + 0.15 * torch.tensor(noise("limits", (17,))))
    model.special_care_embeds_weights.copy_(0.2 + 0.1 * torch.tensor(noise("special limits", (3,))))
    flags = model(pixels, pixels.clone())[1]
    special = torch.tensor(flags).float()
    print("flagged", flags)
    cases["safety"] = (model, {"flags": special})

    for name, shape, size in (("down", (12, 9), 14), ("up", (4, 4), 32)):
        # squares of 5 x 5 equal pixels
        grid = np.kron((noise(f"prepare {name}", (*shape, 3)) + 1) / 2, np.ones((5, 5, 1)))
        grid = (np.pad(grid, ((2, 2), (2, 2), (0, 0)), "edge") * 255).round().astype(np.uint8)
        processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
        made = torch.tensor(processor(grid, return_tensors="np")["pixel_values"][0])
        cases[f"prepare {name}"] = (Holder({}), {"pixels": made})

    x, context = torch.tensor(noise("x", (2, 4, 8, 8))), torch.tensor(noise("context", (2, 5, 24)))
    sizes = {"text_embeds": torch.tensor(noise("pooled", (2, 20))), "time_ids": torch.tensor([[8.0] * 6] * 2)}
    for name, case, side in (("adapter", "sd1", 16), ("adapter_xl", "sdxl", 16)):
        unet = take(UNet2DConditionModel(**sd_unet.CONDITION[case]))
        model = take(T2IAdapter(**ADAPTERS[name]))
        features = [0.8 * f for f in model(torch.tensor(noise("hint", (2, 3, side, side))))]
        if case == "sdxl":  # the fourth of the real ones, which is the middle's
            features.append(torch.tensor(noise("mid", (2, 64, 4, 4))))
        print(name, [tuple(f.shape) for f in features])
        options = {"added_cond_kwargs": sizes} if case == "sdxl" else {}
        y = unet(x, sd_unet.T, context, down_intrablock_additional_residuals=list(features), **options).sample
        cases[name] = (model, {"first": features[0], "y": y})

    unet = take(UNet2DConditionModel(**sd_unet.CONDITION["sd1"]))
    shapes = ip_shapes(unet)
    add_ip(unet, shapes)
    vector = torch.tensor(noise("vector", (2, 1, 12)))
    y = unet(x, sd_unet.T, context, added_cond_kwargs={"image_embeds": [vector]}).sample
    cases["ip"] = (Holder(shapes), {"y": y})

    shapes = {"latents": (1, 5, 16), "proj_in.weight": (16, 12), "proj_in.bias": (16,)}
    shapes |= {"proj_out.weight": (24, 16), "proj_out.bias": (24,), "norm_out.weight": (24,), "norm_out.bias": (24,)}
    for n in range(4):
        norms = {f"layers.{n}.{m}.{leaf}": (16,) for m in ("0.norm1", "0.norm2", "1.0") for leaf in ("weight", "bias")}
        shapes |= norms
        shapes |= {f"layers.{n}.0.to_q.weight": (128, 16), f"layers.{n}.0.to_kv.weight": (256, 16)}
        shapes |= {f"layers.{n}.0.to_out.weight": (16, 128)}
        shapes |= {f"layers.{n}.1.1.weight": (64, 16), f"layers.{n}.1.3.weight": (16, 64)}
    named = {f"image_proj.{name}": shape for name, shape in shapes.items()}
    plus = {name.removeprefix("image_proj."): torch.tensor(w) for name, w in weights(named).items()}
    projection = unet._convert_ip_adapter_image_proj_to_diffusers(plus)
    cases["plus"] = (Holder(named), {"tokens": projection(torch.tensor(noise("states", (2, 7, 12))))})
    shapes = {"proj.0.weight": (12, 12), "proj.0.bias": (12,), "proj.2.weight": (24, 12), "proj.2.bias": (24,)}
    shapes |= {"proj.3.weight": (24,), "proj.3.bias": (24,)}
    named = {f"image_proj.{name}": shape for name, shape in shapes.items()}
    full = {name.removeprefix("image_proj."): torch.tensor(w) for name, w in weights(named).items()}
    projection = unet._convert_ip_adapter_image_proj_to_diffusers(full)
    cases["full"] = (Holder(named), {"tokens": projection(torch.tensor(noise("states", (2, 7, 12))))})
    save(HERE.with_name("sd_image.npz"), cases)


if __name__ == "__main__":
    main()
