"""Pictures of small unCLIP pipelines (diffusers 0.42.1, Karlo's) with weights by formula: unclip.npz.

    python tests/reference/unclip.py

Every draw of noise of one shape is the same array by formula, as in imagen_pipeline.py.
"""

import json
import pathlib

import diffusers
import imagen_unet
import kandinsky
import numpy as np
import sd_pipeline
import torch
import transformers
from diffusers.pipelines.deprecated.unclip import UnCLIPImageVariationPipeline, UnCLIPPipeline
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from imagen_pipeline import fixed_noise, picture
from PIL import Image
from sd_weights import take

HERE = pathlib.Path(__file__)
PRIOR = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 24}


@torch.no_grad()
def main():
    text = transformers.CLIPTextConfig(**sd_pipeline.TEXT, projection_dim=24)
    larger = {**imagen_unet.PIXELS["karlo larger"], "sample_size": 16}
    parts = {
        "prior": diffusers.PriorTransformer(**PRIOR),
        "decoder": diffusers.UNet2DConditionModel(**imagen_unet.CONDITION["karlo"], sample_size=8),
        "text_encoder": transformers.CLIPTextModelWithProjection(text),
        "text_proj": UnCLIPTextProjModel(clip_embeddings_dim=24, time_embed_dim=64, cross_attention_dim=32),
        "super_res_first": diffusers.UNet2DModel(**larger),
        "super_res_last": diffusers.UNet2DModel(**{**larger, "layers_per_block": 2}),
        "image_encoder": transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**kandinsky.VISION)),
    }
    parts = {name: take(part) for name, part in parts.items()}
    schedulers = {
        "prior_scheduler": diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        "decoder_scheduler": diffusers.UnCLIPScheduler(variance_type="learned_range"),
        "super_res_scheduler": diffusers.UnCLIPScheduler(),
    }
    but = lambda named, word: {name: one for name, one in named.items() if word not in name}
    words = sd_pipeline.tokenizer()
    pipe = UnCLIPPipeline(**but(parts, "image"), **schedulers, tokenizer=words)
    pipe.set_progress_bar_config(disable=True)
    fixed_noise()
    made = pipe(
        sd_pipeline.PROMPTS,
        prior_num_inference_steps=4,
        decoder_num_inference_steps=4,
        super_res_num_inference_steps=3,
        prior_guidance_scale=3.0,
        decoder_guidance_scale=2.0,
        output_type="np",
    ).images
    sees = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    vary = UnCLIPImageVariationPipeline(
        **but(parts, "prior"), **but(schedulers, "prior"), tokenizer=words, feature_extractor=sees
    )
    vary.set_progress_bar_config(disable=True)
    varied = vary(
        [Image.fromarray(one) for one in picture("seen", 24)],
        decoder_num_inference_steps=4,
        super_res_num_inference_steps=3,
        decoder_guidance_scale=2.0,
        output_type="np",
    ).images
    index = {
        "parts": {},
        "schedulers": {n: {"_class_name": "UnCLIPScheduler", **s.config} for n, s in schedulers.items()},
    }
    for name, part in parts.items():
        config = part.config.to_diff_dict() if name.endswith("_encoder") else dict(part.config)
        shapes = {n: list(v.shape) for n, v in part.state_dict().items()}
        index["parts"][name] = {"class": type(part).__name__, "config": config, "shapes": shapes}
    arrays = {}
    for name, x in (("pictures", made), ("varied", varied)):
        print(name, x.shape, x.std(), ((x > 0) & (x < 1)).mean())
        arrays[name] = (x * 65535).round().astype(np.uint16)
    packed = np.frombuffer(json.dumps(index, default=lambda x: x.tolist()).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("unclip.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
