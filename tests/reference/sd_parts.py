"""Outputs of small autoencoders and CLIP encoders (diffusers 0.42.1, transformers 5.23) with weights by formula.

    python tests/reference/sd_parts.py

Writes sd_autoencoder.npz, sd_clip.npz and sd_controlnet.npz: configs, the shapes of tensors, and outputs.
"""

import pathlib

import sd_unet
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel, VQModel
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
TINY = {
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "num_encoder_blocks": (1, 2),
    "num_decoder_blocks": (2, 1),
}
VQ = {**LEVELS, "num_vq_embeddings": 20, "layers_per_block": 1, "latent_channels": 4, "vq_embed_dim": 3}
CONTROLS = {
    "plain": {"attention_head_dim": 4, "conditioning_embedding_out_channels": (4, 8)},
    "other": {
        "attention_head_dim": 8,
        "conditioning_embedding_out_channels": (4, 6),
        "conditioning_channels": 3,
        "controlnet_conditioning_channel_order": "bgr",
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
    model = take(AutoencoderTiny(**TINY))
    latents = model.encode(torch.tensor(noise("picture", (2, 3, 16, 24)))).latents
    picture = model.decode(torch.tensor(noise("z", (2, 4, 8, 12)))).sample
    cases["tiny"] = (model, {"latents": latents, "picture": picture})
    model = take(VQModel(**VQ))
    latents = model.encode(torch.tensor(noise("picture", (2, 3, 16, 24)))).latents
    z = torch.tensor(noise("z", (2, 3, 8, 12)))
    codes = model.quantize(z)[2][2].reshape(2, 8, 12).int()
    cases["vq"] = (model, {"latents": latents, "codes": codes, "picture": model.decode(z).sample})
    save(HERE.with_name("sd_autoencoder.npz"), cases)

    cases = {}
    context, x = torch.tensor(noise("context", (2, 5, 24))), torch.tensor(noise("x", (2, 4, 8, 8)))
    unet = take(UNet2DConditionModel(**sd_unet.CONDITION["sd1"]))
    down, mid = [0.0] * 100, 0.0
    for name, scale in (("plain", 0.7), ("other", 1.3)):
        shared = {k: v for k, v in sd_unet.CONDITION["sd1"].items() if k != "up_block_types"}
        model = take(ControlNetModel(**{**shared, **CONTROLS[name]}))
        hint = torch.tensor(noise(f"hint {name}", (2, 3, 16, 16)))
        more, middle = model(x, sd_unet.T, context, hint, conditioning_scale=scale, return_dict=False)
        cases[name] = (model, {"first": more[0], "mid": middle})
        down, mid = [a + b for a, b in zip(down, more, strict=False)], mid + middle
    options = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    cases["unet"] = (unet, {"y": unet(x, sd_unet.T, context, **options).sample})
    save(HERE.with_name("sd_controlnet.npz"), cases)

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
