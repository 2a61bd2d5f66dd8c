"""Pictures of small pipelines of Kandinsky 2.2 (diffusers 0.42.1) with weights by formula: kandinsky.npz.

    python tests/reference/kandinsky.py

Every draw of noise of one shape is the same array by formula, as in imagen_pipeline.py. The file keeps configs and
shapes of the parts, the schedulers' configs, what the prior makes and two pictures for each case as 16-bit numbers.
"""

import json
import pathlib

import diffusers
import imagen_unet
import numpy as np
import sd_pipeline
import torch
import transformers
from imagen_pipeline import fixed_noise, picture
from PIL import Image
from sd_weights import noise, take

HERE = pathlib.Path(__file__)
PRIOR = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 24}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 24,
}
MOVQ = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    "latent_channels": 4,
    "vq_embed_dim": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "norm_type": "spatial",
    "num_vq_embeddings": 20,
}
BETAS = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample_range": 2.0}
PROMPTS, NEGATIVE = sd_pipeline.PROMPTS, "ugly"


def entry(part):
    """Returns what the tests make a part of."""
    config = part.config.to_diff_dict() if hasattr(part.config, "to_diff_dict") else dict(part.config)
    shapes = {n: list(v.shape) for n, v in part.state_dict().items()}
    return {"class": type(part).__name__, "config": config, "shapes": shapes}


def scheduler(one):
    return {"_class_name": type(one).__name__, **one.config}


def save(name, index, arrays):
    """Writes pictures in [0, 1] as 16-bit numbers, and other arrays as they are; prints how much is neither 0 nor 1."""
    packed = {"index": np.frombuffer(json.dumps(index, default=lambda x: x.tolist()).encode(), np.uint8)}
    for key, x in arrays.items():
        x = np.asarray(x)
        print(key, x.shape, x.std(), ((x > 0) & (x < 1)).mean())
        packed[key] = (x * 65535).round().astype(np.uint16) if x.ndim == 4 and x.shape[-1] == 3 else x
    np.savez_compressed(HERE.with_name(name), **packed)


def exact(one):
    """Returns an UnCLIPScheduler with coefficients in float64: in float32 their error alone is 4e-4 of embeddings."""
    share = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = [min(1 - share((n + 1) / 1000) / share(n / 1000), 0.999) for n in range(1000)]
    one.betas, one.one = torch.tensor(np.array(betas)), torch.tensor(1.0, dtype=torch.float64)
    one.alphas = 1 - one.betas
    one.alphas_cumprod = torch.cumprod(one.alphas, 0)

    def add_noise(x, noise, t):
        signal, level = (float(share**0.5) for share in (one.alphas_cumprod[t[0]], 1 - one.alphas_cumprod[t[0]]))
        return signal * x + level * noise

    one.add_noise = add_noise
    return one


@torch.no_grad()
def main():
    unet = lambda case, **more: take(
        diffusers.UNet2DConditionModel(**{**imagen_unet.CONDITION[case], "sample_size": 8, **more})
    )
    text = transformers.CLIPTextConfig(**sd_pipeline.TEXT, projection_dim=24)
    told = {
        "prior": take(diffusers.PriorTransformer(**PRIOR)),
        "text_encoder": take(transformers.CLIPTextModelWithProjection(text)),
        "image_encoder": take(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION))),
    }
    parts = {
        **told,
        "unet": unet("kandinsky 2.2"),
        "unet fills": unet("kandinsky 2.2", in_channels=9),
        "unet hint": unet("kandinsky 2.2 with a hint"),
        "movq": take(diffusers.VQModel(**MOVQ)),
    }
    schedulers = {
        "prior": exact(diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)),
        "ddpm": diffusers.DDPMScheduler(**BETAS, variance_type="learned_range"),
        "ddim": diffusers.DDIMScheduler(**BETAS, set_alpha_to_one=False, steps_offset=1),
    }
    prior = diffusers.KandinskyV22PriorPipeline(
        **told,
        tokenizer=sd_pipeline.tokenizer(),
        scheduler=schedulers["prior"],
        image_processor=transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16),
    )
    decoder = lambda kind, net, how: kind(unet=parts[net], movq=parts["movq"], scheduler=schedulers[how])
    fixed_noise()
    prior.set_progress_bar_config(disable=True)
    embed = {
        "plain": prior(PROMPTS, num_inference_steps=4, guidance_scale=3.0),
        "negative": prior(PROMPTS, [NEGATIVE] * 2, num_inference_steps=4, guidance_scale=3.0),
    }
    both = [
        [Image.fromarray(one) for one in pair] for pair in zip(picture("seen", 16), picture("other", 16), strict=True)
    ]
    mixed = [prior.interpolate([*pair], [0.7, 0.3], num_inference_steps=2) for pair in both]
    embed["mixed"] = type(mixed[0])(
        image_embeds=torch.cat([one.image_embeds for one in mixed]),
        negative_image_embeds=torch.cat([one.negative_image_embeds for one in mixed]),
    )
    few = {"num_inference_steps": 4, "guidance_scale": 3.0}
    parts_of_blend = [PROMPTS[0], both[0][0], both[0][1]]
    for name, away in (("blend", ""), ("blend negative", NEGATIVE)):
        embed[name] = prior.interpolate(parts_of_blend, [0.5, 0.4, -0.2], negative_prompt=away, **few)
    changes = diffusers.KandinskyV22PriorEmb2EmbPipeline(**prior.components)
    changes.set_progress_bar_config(disable=True)
    seen = [pair[0] for pair in both]
    embed["changed"] = changes(PROMPTS, seen, strength=0.6, num_inference_steps=5, guidance_scale=3.0)
    embed["changed negative"] = changes(PROMPTS, seen, 0.6, [NEGATIVE] * 2, num_inference_steps=5, guidance_scale=3.0)
    as_image = lambda x: torch.tensor(x / np.float32(127.5) - 1).permute(0, 3, 1, 2)
    image = as_image(picture("image", 16))
    mask = torch.tensor((noise("mask", (1, 16, 16, 1)) > 0.2).astype(np.float32)).permute(0, 3, 1, 2)
    hint = torch.tensor(picture("hint", 64) / np.float32(255)).permute(0, 3, 1, 2)
    same = {"height": 16, "width": 16, "num_inference_steps": 5, "guidance_scale": 2.0, "output_type": "np"}
    calls = {
        "text": (diffusers.KandinskyV22Pipeline, "unet", "ddpm", "plain", {}),
        "negative": (diffusers.KandinskyV22Pipeline, "unet", "ddim", "negative", {}),
        "image": (diffusers.KandinskyV22Img2ImgPipeline, "unet", "ddpm", "plain", {"image": image, "strength": 0.6}),
        # the reference fills all pictures of a batch from its first one
        "fills": (
            diffusers.KandinskyV22InpaintPipeline,
            "unet fills",
            "ddpm",
            "plain",
            {"image": image[:1].repeat(2, 1, 1, 1), "mask_image": mask.repeat(2, 1, 1, 1)},
        ),
        "hint": (diffusers.KandinskyV22ControlnetPipeline, "unet hint", "ddim", "plain", {"hint": hint}),
        "hint image": (
            diffusers.KandinskyV22ControlnetImg2ImgPipeline,
            "unet hint",
            "ddim",
            "plain",
            {"hint": hint, "image": image, "strength": 0.6},
        ),
        "mixed": (diffusers.KandinskyV22Pipeline, "unet", "ddpm", "mixed", {}),
    }
    arrays = {f"embed {name}": made.image_embeds for name, made in embed.items()}
    arrays |= {f"no embed {name}": made.negative_image_embeds for name, made in embed.items()}
    z = torch.tensor(noise("z", (2, 4, 8, 12)))
    arrays["movq latents"] = parts["movq"].encode(torch.tensor(noise("picture", (2, 3, 16, 24)))).latents
    arrays["movq picture"] = parts["movq"].decode(z, force_not_quantize=True).sample
    for name, (kind, net, how, given, inputs) in calls.items():
        pipe = decoder(kind, net, how)
        pipe.set_progress_bar_config(disable=True)
        one = {"image_embeds": embed[given].image_embeds, "negative_image_embeds": embed[given].negative_image_embeds}
        arrays[name] = pipe(**one, **inputs, **same).images
    index = {"parts": {name: entry(part) for name, part in parts.items()}}
    index["schedulers"] = {name: scheduler(one) for name, one in schedulers.items()}
    save("kandinsky.npz", index, arrays)


if __name__ == "__main__":
    main()
