"""What LoRA files call the modules of a model: every layout against our parameters."""

import pytest
from lora_files import CONV, LAYER, OUT, PROJ, K, Q, compare, flat, head, last, merged, original, product
from reference.sd_weights import noise
from safetensors.numpy import save_file

PEFT_PAIR = ("lora_A.weight", "lora_B.weight")
DOWN_UP = ("lora_down.weight", "lora_up.weight")
UNET_NAMES = {
    "diffusers": (lambda m, _: f"unet.{m}.", PEFT_PAIR),
    "diffusers, lora.down": (lambda m, _: f"unet.{m}.", ("lora.down.weight", "lora.up.weight")),
    "diffusers' first": (
        lambda m, _: f"unet.{head(m)}.processor.{last(m)}_lora.",
        ("down.weight", "up.weight"),
    ),
    "attention processors": (lambda m, _: f"{head(m)}.processor.{last(m)}_lora.", ("down.weight", "up.weight")),
    "PEFT": (lambda m, _: f"base_model.model.{m}.", PEFT_PAIR),
    "PEFT with the adapter's name": (
        lambda m, _: f"base_model.model.{m}.",
        ("lora_A.my-style.weight", "lora_B.my-style.weight"),
    ),
    "PEFT under diffusers": (lambda m, _: f"unet.base_model.model.{m}.", PEFT_PAIR),
    "PEFT's bare names": (lambda m, _: f"{m}.", PEFT_PAIR),
    "kohya": (lambda m, _: f"lora_unet_{flat(m)}.", DOWN_UP),
    "kohya, original names": (lambda _, o: f"lora_unet_{flat(o)}.", DOWN_UP),
    "OneTrainer": (lambda m, _: f"lora_unet.{m}.", DOWN_UP),
    "OneTrainer, original names": (lambda _, o: f"unet.{o}.", DOWN_UP),
    "ComfyUI": (lambda _, o: f"diffusion_model.{o}.", DOWN_UP),
    "ComfyUI, PEFT's pair": (lambda _, o: f"diffusion_model.{o}.", PEFT_PAIR),
    "single file": (lambda _, o: f"model.diffusion_model.{o}.", DOWN_UP),
    "SimpleTuner": (lambda m, _: f"lycoris_{flat(m)}.", DOWN_UP),
}
TEXT_NAMES = {
    "diffusers": ("text_encoder", lambda m: f"text_encoder.{m}.", PEFT_PAIR),
    "diffusers, linear layer": (
        "text_encoder",
        lambda m: f"text_encoder.{m}.",
        ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    ),
    "diffusers' first": (
        "text_encoder",
        lambda m: f"text_encoder.{head(m)}.to_{last(m).removesuffix('_proj')}_lora.",
        ("down.weight", "up.weight"),
    ),
    "diffusers, second": ("text_encoder_2", lambda m: f"text_encoder_2.{m}.", PEFT_PAIR),
    "without text_model": (
        "text_encoder",
        lambda m: f"text_encoder.{m.removeprefix('text_model.')}.",
        PEFT_PAIR,
    ),
    "kohya": ("text_encoder", lambda m: f"lora_te_{flat(m)}.", DOWN_UP),
    "kohya, SDXL's first": ("text_encoder", lambda m: f"lora_te1_{flat(m)}.", DOWN_UP),
    "kohya, SDXL's second": ("text_encoder_2", lambda m: f"lora_te2_{flat(m)}.", DOWN_UP),
    "OneTrainer": ("text_encoder", lambda m: f"lora_te1.{m}.", DOWN_UP),
    "OneTrainer, second": ("text_encoder_2", lambda m: f"lora_te2.{m}.", DOWN_UP),
    "OneTrainer, clip_l": ("text_encoder", lambda m: f"clip_l.{m}.", DOWN_UP),
    "OneTrainer, clip_g": ("text_encoder_2", lambda m: f"clip_g.{m}.", DOWN_UP),
    "ComfyUI": ("text_encoder", lambda m: f"text_encoders.clip_l.transformer.{m}.", DOWN_UP),
    "ComfyUI, Stable Diffusion 2": ("text_encoder", lambda m: f"text_encoders.clip_h.transformer.{m}.", DOWN_UP),
    "ComfyUI, second": ("text_encoder_2", lambda m: f"text_encoders.clip_g.transformer.{m}.", PEFT_PAIR),
}


@pytest.mark.parametrize("layout", UNET_NAMES)
def test_names_of_the_unet(model, plain, tmp_path, layout):
    name, (down, up) = UNET_NAMES[layout]
    old = layout in ("diffusers' first", "attention processors")
    tensors, expected = {}, {}
    for module in (Q, K, OUT) if old else (Q, K, OUT, PROJ, CONV):
        start = name(module, original(model, module))
        w = plain["unet"][f"{module}.weight"]
        a, b = noise(f"{module}/a", (2, *w.shape[1:])), noise(f"{module}/b", (len(w), 2, *[1] * (w.ndim - 2)))
        tensors |= {start + down: a, start + up: b}
        expected["unet", f"{module}.weight"] = w + 0.5 * product(b, a, w.shape)
    save_file(tensors, tmp_path / "f.safetensors")
    compare(merged(model, tmp_path / "f.safetensors", 0.5), expected)


@pytest.mark.parametrize("layout", TEXT_NAMES)
def test_names_of_text_encoders(model, plain, tmp_path, layout):
    part, name, (down, up) = TEXT_NAMES[layout]
    tensors, expected = {}, {}
    for module in (f"{LAYER}.q_proj", f"{LAYER}.out_proj"):
        (own,) = [n for n in plain[part] if module.endswith(n.removesuffix(".weight").removeprefix("text_model."))]
        w = plain[part][own]
        a, b = noise(f"{module}/a", (2, w.shape[1])), noise(f"{module}/b", (len(w), 2))
        tensors |= {name(module) + down: a, name(module) + up: b}
        expected[part, own] = w + b @ a
    save_file(tensors, tmp_path / "f.safetensors")
    compare(merged(model, tmp_path / "f.safetensors"), expected)
