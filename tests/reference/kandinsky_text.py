"""Kandinsky 2.1's text encoder, tokenizer and pictures, and Stable unCLIP's (diffusers 0.42.1), weights by formula.

    python tests/reference/kandinsky_text.py

Writes kandinsky_text.npz, as kandinsky.py does; the vocabulary is T5's of t5.npz, and the file keeps the ids of its
2,000 captions.
"""

import json
import pathlib
import tempfile

import diffusers
import imagen_unet
import numpy as np
import sd_parts
import sd_pipeline
import sd_unet
import torch
import transformers
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from imagen_pipeline import fixed_noise, picture
from kandinsky import BETAS, MOVQ, NEGATIVE, PRIOR, PROMPTS, VISION, entry, save, scheduler
from PIL import Image
from sd_weights import noise, take
from t5 import captions

HERE = pathlib.Path(__file__)
XLM = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "transformerDimSize": 24,
    "imageDimSize": 32,
    "max_position_embeddings": 90,
    "type_vocab_size": 1,
}


def words():
    """XLM-RoBERTa's tokenizer with T5's pieces."""
    pieces = json.loads(bytes(np.load(HERE.with_name("t5.npz"))["json"]))["model"]["vocab"]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    kept = [(piece, score) for piece, score in pieces if not piece.startswith("<")]
    vocabulary = [*((name, 0.0) for name in special), *kept, ("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizer(vocab=vocabulary, model_max_length=77)


@torch.no_grad()
def main():
    tokenizer = words()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        file = (pathlib.Path(folder) / "tokenizer.json").read_bytes()
    config = MCLIPConfig(**XLM, vocab_size=len(tokenizer), pad_token_id=1)
    text = take(MultilingualCLIP(config))
    unet = lambda case, **more: take(diffusers.UNet2DConditionModel(**{**case, "sample_size": 8, **more}))
    kandinsky = imagen_unet.CONDITION["kandinsky"]
    wide = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 48}
    clip = transformers.CLIPTextModel(transformers.CLIPTextConfig(**sd_pipeline.TEXT))
    told = transformers.CLIPTextConfig(**sd_pipeline.TEXT, projection_dim=24)
    parts = {
        "text": text,
        "unet": unet(kandinsky),
        "unet fills": unet(kandinsky, in_channels=9),
        "movq": take(diffusers.VQModel(**MOVQ)),
        "stable unet": unet(sd_unet.CONDITION["sd1"], **wide),
        "stable text": take(clip),
        "vae": take(diffusers.AutoencoderKL(**sd_parts.AUTOENCODERS["sd"])),
        "vision": take(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION))),
        "normalizer": take(StableUnCLIPImageNormalizer(24)),
        "prior": take(diffusers.PriorTransformer(**PRIOR)),
        "prior text": take(transformers.CLIPTextModelWithProjection(told)),
    }
    schedulers = {
        "ddim": diffusers.DDIMScheduler(**BETAS, set_alpha_to_one=False, steps_offset=1),
        "level": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "prior": diffusers.DDPMScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type="sample",
            clip_sample_range=5.0,
            variance_type="fixed_small_log",
        ),
    }
    ids = [tokenizer(one, truncation=True, max_length=77).input_ids for one in captions()]
    given = tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    vector, states = text(given.input_ids, given.attention_mask)
    arrays = {"vector": vector, "states": states[:, :12]}
    embed = torch.tensor(noise("embed", (2, 32)))
    away = torch.tensor(noise("away", (2, 32)))
    as_image = lambda x: torch.tensor(x / np.float32(127.5) - 1).permute(0, 3, 1, 2)
    image = as_image(picture("image", 16))
    mask = torch.tensor((noise("mask", (1, 16, 16, 1)) > 0.2).astype(np.float32)).permute(0, 3, 1, 2)
    same = {"num_inference_steps": 5, "guidance_scale": 2.0, "output_type": "np", "height": 16, "width": 16}
    seen = {"image_embeds": embed, "negative_image_embeds": away}
    both = {"image": image[:1].repeat(2, 1, 1, 1), "mask_image": mask.repeat(2, 1, 1, 1)}
    calls = {
        "text": (diffusers.KandinskyPipeline, "unet", {}),
        "image": (diffusers.KandinskyImg2ImgPipeline, "unet", {"image": image, "strength": 0.6}),
        "fills": (diffusers.KandinskyInpaintPipeline, "unet fills", both),
    }
    fixed_noise()
    for name, (kind, net, inputs) in calls.items():
        pipe = kind(
            text_encoder=text,
            tokenizer=tokenizer,
            unet=parts[net],
            movq=parts["movq"],
            scheduler=diffusers.DDIMScheduler.from_config(schedulers["ddim"].config),
        )
        pipe.set_progress_bar_config(disable=True)
        arrays[name] = pipe(prompt=PROMPTS, negative_prompt=[NEGATIVE] * 2, **seen, **inputs, **same).images
    shared = {"unet": parts["stable unet"], "vae": parts["vae"], "image_normalizer": parts["normalizer"]}
    shared |= {"image_noising_scheduler": schedulers["level"], "scheduler": schedulers["ddim"]}
    shared |= {"tokenizer": sd_pipeline.tokenizer(), "text_encoder": parts["stable text"]}
    sees = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    pipe = diffusers.StableUnCLIPImg2ImgPipeline(**shared, feature_extractor=sees, image_encoder=parts["vision"])
    pipe.set_progress_bar_config(disable=True)
    told = {"negative_prompt": [NEGATIVE] * 2, **same}
    seen = torch.tensor(noise("embed", (2, 24)))
    arrays["noisy"] = pipe(prompt=PROMPTS, image_embeds=seen, noise_level=300, **told).images
    shown = [Image.fromarray(one) for one in picture("image", 16)]
    arrays["varied"] = pipe(shown, prompt=PROMPTS, noise_level=20, **told).images
    beside = {
        "prior": parts["prior"],
        "prior_text_encoder": parts["prior text"],
        "prior_scheduler": schedulers["prior"],
    }
    pipe = diffusers.StableUnCLIPPipeline(**shared, **beside, prior_tokenizer=sd_pipeline.tokenizer())
    pipe.set_progress_bar_config(disable=True)
    arrays["imagined"] = pipe(
        prompt=PROMPTS, prior_num_inference_steps=4, prior_guidance_scale=3.0, noise_level=20, **told
    ).images
    index = {"parts": {name: entry(part) for name, part in parts.items()}}
    index["schedulers"] = {name: scheduler(one) for name, one in schedulers.items()}
    arrays |= {"json": np.frombuffer(file, np.uint8), "ids": np.concatenate(ids).astype(np.uint16)}
    arrays["lengths"] = np.array([len(one) for one in ids], np.uint8)
    save("kandinsky_text.npz", index, arrays)


if __name__ == "__main__":
    main()
