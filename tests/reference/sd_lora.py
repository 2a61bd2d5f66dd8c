"""Outputs of small U-Nets with LoRAs loaded by diffusers (0.42.1 with peft 0.21): sd_lora.npz.

    PYTHONPATH=. python tests/reference/sd_lora.py

The file keeps the shapes and names of each LoRA (filled by `sd_weights`), and outputs. Kohya's names for
SDXL follow CompVis' code; they come from jaxdiff's table, and diffusers' converter accepts them.
"""

import json
import pathlib
import tempfile

import numpy as np
import sd_parts
import sd_unet
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from safetensors.torch import save_file
from sd_weights import noise, take, weight
from transformers import CLIPTextConfig, CLIPTextModel

from jaxdiff.pretrained.rules import compvis, flatten, places, unet

HERE = pathlib.Path(__file__)
RANK, ALPHA = 2, 3.0
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MORE = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv_shortcut", "time_emb_proj")


def modules(model, endings):
    return {n: m for n, m in model.named_modules() if n.endswith(endings) and hasattr(m, "weight")}


def shapes(module):
    """Of the two factors."""
    w = module.weight
    if w.ndim == 4:
        return (RANK, *w.shape[1:]), (w.shape[0], RANK, 1, 1)
    return (RANK, w.shape[1]), (w.shape[0], RANK)


def original_names(model):
    """Modules by CompVis' names."""
    json = dict(model.config)
    net = unet.condition_config(json)
    names = {}
    for path in flatten(unet.shapes(net, json)):
        theirs, old = (next(places(path, t), None) for t in (unet.rules(net, json), compvis.unet_rules(net, json)))
        names[theirs.name.removesuffix(".weight")] = old.name.removesuffix(".weight")
    return names


def file(kind, model, endings):
    """{name: shape} of a LoRA of that kind."""
    rows = {}
    renamed = original_names(model) if kind == "kohya_xl" else {}
    for name, module in modules(model, endings).items():
        down, up = shapes(module)
        if kind == "peft":
            rows |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
        elif kind == "old":
            head, _, last = name.removesuffix(".0").rpartition(".")
            start = f"unet.{head}.processor.{last}_lora"
            rows |= {f"{start}.down.weight": down, f"{start}.up.weight": up}
        else:
            start = "lora_unet_" + renamed.get(name, name).replace(".", "_")
            rows |= {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up, f"{start}.alpha": ()}
    return rows


def tensors(rows):
    return {n: torch.tensor(ALPHA) if n.endswith("alpha") else torch.tensor(weight(n, s)) for n, s in rows.items()}


@torch.no_grad()
def main():
    index, arrays = {}, {}
    x, context = torch.tensor(noise("x", (2, 4, 8, 8))), torch.tensor(noise("context", (2, 5, 24)))
    sizes = {"text_embeds": torch.tensor(noise("pooled", (2, 20))), "time_ids": torch.tensor([[8.0] * 6] * 2)}
    cases = {
        "peft": ("sd1", ATTENTION),
        "old": ("sd1", ATTENTION),
        "kohya": ("sd1", MORE),
        "kohya_xl": ("sdxl", MORE),
    }
    with tempfile.TemporaryDirectory() as folder:
        for kind, (case, endings) in cases.items():
            model = take(UNet2DConditionModel(**sd_unet.CONDITION[case]))
            rows = file(kind, model, endings)
            save_file(tensors(rows), f"{folder}/{kind}.safetensors")
            loader = StableDiffusionXLLoraLoaderMixin if case == "sdxl" else StableDiffusionLoraLoaderMixin
            options = {"unet_config": model.config} if case == "sdxl" else {}
            state, alphas = loader.lora_state_dict(f"{folder}/{kind}.safetensors", **options)[:2]
            loader.load_lora_into_unet(state, alphas, model, adapter_name="one")
            model.set_adapters(["one"], [0.7])
            y = model(x, sd_unet.T, context, added_cond_kwargs=sizes if case == "sdxl" else None).sample
            index[kind], arrays[kind] = {"case": case, "shapes": rows}, y.numpy()
            if kind == "kohya":  # two at once
                both = loader.lora_state_dict(f"{folder}/peft.safetensors")[:2]
                loader.load_lora_into_unet(*both, model, adapter_name="two")
                model.set_adapters(["one", "two"], [0.7, -0.4])
                arrays["both"] = model(x, sd_unet.T, context).sample.numpy()
    text = take(CLIPTextModel(CLIPTextConfig(**sd_parts.TEXT, max_position_embeddings=8, eos_token_id=98)))
    rows = {}
    for name, module in modules(text, ("q_proj", "out_proj", "fc1")).items():
        down, up = shapes(module)
        start = "lora_te_text_model_" + name.replace(".", "_")
        rows |= {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up, f"{start}.alpha": ()}
        made = tensors({f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up})
        change = made[f"{start}.lora_up.weight"] @ made[f"{start}.lora_down.weight"]
        module.weight += 0.7 * ALPHA / RANK * change
    index["text"] = {"case": "text", "shapes": rows, "config": text.config.to_diff_dict()}
    index["text"]["tensors"] = {n: list(v.shape) for n, v in text.state_dict().items()}
    arrays["text"] = text(torch.tensor(sd_parts.TOKENS)).last_hidden_state.numpy()
    for key, array in arrays.items():
        print(key, array.shape, array.std())
    packed = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("sd_lora.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
