"""What PEFT (0.21) makes of a small U-Net's weights with each kind of its adapters: sd_lora_peft.npz.

    PYTHONPATH=. python tests/reference/sd_lora_peft.py

For each adapter: its config, the names and shapes of its tensors (filled by `sd_weights`), and for each module that it
changes the merged weight [o, ...], of which only the sums over all but o with a fixed vector are kept.
"""

import json
import pathlib

import numpy as np
import peft
import sd_unet
import torch
from diffusers import UNet2DConditionModel
from sd_weights import noise, take, weight

HERE = pathlib.Path(__file__)
BLOCK = "down_blocks.0.attentions.0"
MODULES = (
    f"{BLOCK}.transformer_blocks.0.attn1.to_q",
    f"{BLOCK}.transformer_blocks.0.attn2.to_k",
    f"{BLOCK}.transformer_blocks.0.attn1.to_out.0",
    f"{BLOCK}.proj_in",
    "down_blocks.0.resnets.0.conv1",
)
NAMED = {"target_modules": list(MODULES), "r": 4}
PATTERNS = {"rank_pattern": {"to_k": 2, r"resnets\.0\.conv1": 6}, "alpha_pattern": {"attn1.to_q": 3, "proj_in": 0.5}}
ADAPTERS = {
    "lora": peft.LoraConfig(**NAMED, lora_alpha=6),
    "rslora": peft.LoraConfig(**NAMED, lora_alpha=6, use_rslora=True),
    "patterns": peft.LoraConfig(**NAMED, lora_alpha=6, **PATTERNS),
    "dora": peft.LoraConfig(**NAMED, lora_alpha=6, use_dora=True),
    "bias": peft.LoraConfig(target_modules=[MODULES[2]], r=4, lora_alpha=6, lora_bias=True),
    "loha": peft.LoHaConfig(**NAMED, alpha=6),
    "loha_tucker": peft.LoHaConfig(**NAMED, alpha=6, use_effective_conv2d=True),
    "lokr": peft.LoKrConfig(**NAMED, alpha=6),
    "lokr_half": peft.LoKrConfig(**{**NAMED, "r": 2}, alpha=6),
    "lokr_both": peft.LoKrConfig(**{**NAMED, "r": 1}, alpha=6, decompose_both=True),
    "lokr_tucker": peft.LoKrConfig(**{**NAMED, "r": 1}, alpha=6, use_effective_conv2d=True),
}


def fill(model):
    """Gives the adapter's tensors numbers; magnitudes stay positive."""
    state = peft.get_peft_model_state_dict(model)
    made = {n: torch.tensor(weight(n, tuple(x.shape))) for n, x in state.items()}
    made |= {n: 1 + x.abs() for n, x in made.items() if "magnitude" in n}
    peft.set_peft_model_state_dict(model, made)
    return {n: list(x.shape) for n, x in state.items()}


@torch.no_grad()
def main():
    index, arrays = {}, {}
    for name, config in ADAPTERS.items():
        model = peft.get_peft_model(take(UNet2DConditionModel(**sd_unet.CONDITION["sd1"])), config)
        shapes = fill(model)
        saved = {key: sorted(x) if isinstance(x, set) else x for key, x in config.to_dict().items()}
        index[name] = {"config": json.loads(json.dumps(saved, default=str)), "shapes": shapes}
        merged = model.merge_and_unload()
        for module in MODULES:
            part = merged.get_submodule(module)
            flat = part.weight.flatten(1)
            arrays[f"{name}/{module}"] = (flat @ torch.tensor(noise(module, (flat.shape[1],)))).numpy()
            if part.bias is not None:
                arrays[f"{name}/{module}/bias"] = part.bias.numpy()
        print(name, len(shapes))
    index["fields"] = sorted(
        {field for kind in (peft.LoraConfig, peft.LoHaConfig, peft.LoKrConfig) for field in kind().to_dict()}
    )
    packed = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("sd_lora_peft.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
