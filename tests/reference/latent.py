"""Pictures of small pipelines of latent diffusion (diffusers 0.42.1) with weights by formula: latent.npz.

    python tests/reference/latent.py

Text to image with LDMBert, unconditional and super-resolution with a VQ autoencoder, and Stable Diffusion 2's depth
model with a depth map that is given. Noise is by formula, as in sd_tasks.py. The file keeps configs and shapes of the
parts, a small vocabulary of WordPiece, tokens of captions, states of the text encoder, and pictures as 16-bit numbers.
"""

import json
import pathlib
import sys
import tempfile

import diffusers
import numpy as np
import sd_parts
import sd_pipeline
import sd_tasks
import sd_unet
import torch
import transformers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from sd_weights import noise, take

HERE = pathlib.Path(__file__)
PROMPTS, GUIDANCE = sd_pipeline.PROMPTS, sd_pipeline.GUIDANCE
TEXT = {
    "d_model": 24,
    "head_dim": 8,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "encoder_layers": 2,
}
PIXELS = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a red heart seven bird ##s ! ' , . it über ##n uber ##ub ##b e ##e 漢 字 x ##x"
CAPTIONS = [
    "",
    "Über, HEARTS!",
    "it's a bird.",
    "漢字 x\u0301xx",
    "[SEP] a [MASK]b",
    "x" * 99,
    "x" * 101,
    "a\x00\tb\u00ad red",
]


def vocabulary():
    letters = [chr(n) for n in range(ord("a"), ord("z") + 1)]
    return list(dict.fromkeys([*WORDS.split(), *letters, *(f"##{letter}" for letter in letters)]))


def tokenizer():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vocab.txt"
        path.write_text("".join(f"{word}\n" for word in vocabulary()), encoding="utf-8")
        return transformers.BertTokenizer.from_pretrained(folder, model_max_length=77)


def depth_map():
    """uint8 [2 h w 3], gray and smaller than the picture's latents would be enlarged to."""
    return np.repeat(((noise("depth", (2, 12, 12, 1)) + 1) * 127.5).round().astype(np.uint8), 3, -1)


@torch.no_grad()
def main():
    words, ddim = tokenizer(), sd_pipeline.SAMPLERS["ddim"]
    vq = {**sd_parts.VQ, "scaling_factor": 0.5}
    unet = {**sd_unet.CONDITION["sd1"], "sample_size": 8}
    bert = LDMBertConfig(vocab_size=len(vocabulary()), **TEXT)
    parts = {
        "bert": take(LDMBertModel(bert)),
        "unet": take(diffusers.UNet2DConditionModel(**unet)),
        "unet_depth": take(diffusers.UNet2DConditionModel(**{**unet, "in_channels": 5})),
        "unet_pixels": take(diffusers.UNet2DModel(**PIXELS)),
        "unet_larger": take(diffusers.UNet2DModel(**{**PIXELS, "in_channels": 6})),
        "vae": take(diffusers.AutoencoderKL(**sd_parts.AUTOENCODERS["sd"])),
        "vqvae": take(diffusers.VQModel(**vq)),
        "text_encoder": take(transformers.CLIPTextModel(transformers.CLIPTextConfig(**sd_pipeline.TEXT))),
    }
    first = lambda channels: torch.tensor(noise("first", (2, channels, 8, 8)) * np.float32(1.7))
    tokens = words(CAPTIONS + PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    arrays = {"tokens": tokens.input_ids.to(torch.int32), "states": parts["bert"](tokens.input_ids[-2:])[0]}
    made = {}
    text = diffusers.LDMTextToImagePipeline(parts["vae"], parts["bert"], words, parts["unet"], ddim)
    plain = diffusers.LDMPipeline(parts["vqvae"], parts["unet_pixels"], ddim)
    larger = diffusers.LDMSuperResolutionPipeline(parts["vqvae"], parts["unet_larger"], ddim)
    depth = diffusers.StableDiffusionDepth2ImgPipeline(
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=sd_pipeline.tokenizer(),
        unet=parts["unet_depth"],
        scheduler=ddim,
        depth_estimator=None,
        feature_extractor=None,
    )
    for pipe in (text, plain, larger, depth):
        pipe.set_progress_bar_config(disable=True)
    sd_tasks.fixed_noise(16)
    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.pipelines") and "latent_diffusion" in name and hasattr(module, "randn_tensor"):
            module.randn_tensor = lambda shape, **options: first(shape[1])
    told = {"num_inference_steps": 5, "guidance_scale": GUIDANCE, "output_type": "np"}
    made["text"] = text(PROMPTS, height=64, width=64, **told)  # which it takes for eight times the latents
    made["plain"] = plain(batch_size=2, num_inference_steps=5, output_type="np")
    small = sd_tasks.tensor(sd_tasks.picture("small", 8)) * 2 - 1
    made["larger"] = larger(image=small, num_inference_steps=5, output_type="np")
    near = torch.tensor(depth_map()[..., 0].astype(np.float32))
    for name, more in {"depth": {}, "depth whole": {"strength": 1.0}}.items():
        made[name] = depth(
            PROMPTS,
            image=sd_tasks.tensor(sd_tasks.picture("image")),
            depth_map=near,
            negative_prompt=["ugly"] * 2,
            **told,
            **more,
        )
    index = {"parts": {}, "scheduler": {"_class_name": "DDIMScheduler", **ddim.config}, "captions": CAPTIONS + PROMPTS}
    index |= {"vocabulary": vocabulary(), "prompts": PROMPTS, "guidance": GUIDANCE}
    for name, part in parts.items():
        config = part.config.to_dict() if hasattr(part.config, "to_diff_dict") else dict(part.config)
        shapes = {n: list(v.shape) for n, v in part.state_dict().items()}
        index["parts"][name] = {"class": type(part).__name__, "config": config, "shapes": shapes}
    for name, out in made.items():
        arrays[name] = (np.asarray(out.images) * 65535).round().astype(np.uint16)
        print(name, arrays[name].shape, out.images.std())
    packed = np.frombuffer(json.dumps(index, default=str).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("latent.npz"), index=packed, **{k: np.asarray(x) for k, x in arrays.items()})


if __name__ == "__main__":
    main()
