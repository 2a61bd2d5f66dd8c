"""Outputs of small autoencoders and CLIP encoders (diffusers 0.42.1, transformers 5.23) with weights by formula.

    python tests/reference/sd_parts.py

Writes sd_autoencoder.npz and sd_clip.npz: each model's config, the shapes of its tensors and its outputs.
"""

import pathlib

import torch
from diffusers import AutoencoderKL
from sd_weights import noise, save, take
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__)
LEVELS = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
}
AUTOENCODERS = {
    "sd": {**LEVELS, "layers_per_block": 2},
    "flux": {
        **LEVELS,
        "latent_channels": 6,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
        "force_upcast": False,
    },
}
TEXT = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXTS = {
    "large": (CLIPTextModel, {"hidden_act": "quick_gelu", "eos_token_id": 2}),
    "huge": (CLIPTextModel, {"hidden_act": "gelu", "eos_token_id": 99}),
    "giant": (CLIPTextModelWithProjection, {"hidden_act": "gelu", "eos_token_id": 98, "projection_dim": 24}),
}
TOKENS = [[1, 5, 7, 98, 99, 99, 0, 0], [1, 5, 80, 81, 12, 98, 3, 99]]


@torch.no_grad()
def main():
    cases = {}
    for name, config in AUTOENCODERS.items():
        model = take(AutoencoderKL(**config))
        moments = model.encode(torch.tensor(noise("picture", (2, 3, 16, 24)))).latent_dist
        z = torch.tensor(noise("z", (2, model.config.latent_channels, 8, 12)))
        cases[name] = (model, {"mean": moments.mean, "log_var": moments.logvar, "picture": model.decode(z).sample})
    save(HERE.with_name("sd_autoencoder.npz"), cases)

    cases = {}
    for name, (kind, config) in TEXTS.items():
        model = take(kind(CLIPTextConfig(**TEXT, max_position_embeddings=8, bos_token_id=1, **config)))
        out = model(torch.tensor(TOKENS), output_hidden_states=True)
        pooled = out.text_embeds if "projection_dim" in config else out.pooler_output
        states = {"last": out.last_hidden_state, "earlier": out.hidden_states[-2]}
        cases[name] = (model, {**states, "pooled": pooled})
    save(HERE.with_name("sd_clip.npz"), cases)


if __name__ == "__main__":
    main()
