"""Pictures of a small StableDiffusionPipeline (diffusers 0.42.1) with weights by formula, by several samplers.

    python tests/reference/sd_pipeline.py

Writes sd_pipeline.npz: configs and shapes of the parts, the schedulers' configs, and two pictures for each.
"""

import json
import pathlib
import tempfile

import diffusers
import numpy as np
import sd_parts
import sd_unet
import torch
import transformers
from sd_weights import noise, take

HERE = pathlib.Path(__file__)
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
FIRST = {"set_alpha_to_one": False, "steps_offset": 1}
SAMPLERS = {
    "ddim": diffusers.DDIMScheduler(**SD, **FIRST, clip_sample=False),
    "ddim v": diffusers.DDIMScheduler(
        **SD,
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    ),
    "pndm": diffusers.PNDMScheduler(**SD, **FIRST, skip_prk_steps=True),
    "euler": diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="leading", steps_offset=1),
    "euler linspace": diffusers.EulerDiscreteScheduler(**SD),
    "dpmpp_2m karras": diffusers.DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True),
    "unipc": diffusers.UniPCMultistepScheduler(**SD),
}
TEXT = {
    "vocab_size": 2017,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 2015,
    "eos_token_id": 2016,
}
PROMPTS, NEGATIVE, STEPS, GUIDANCE = ["a red heart", "seven birds!"], "ugly", 10, 4.0


def tokenizer():
    saved = np.load(HERE.with_name("sd_tokenizer.npz"))
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "vocab.json").write_bytes(bytes(saved["vocab"]))
        (pathlib.Path(folder) / "merges.txt").write_bytes(bytes(saved["merges"]))
        return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def main():
    parts = {
        "unet": take(diffusers.UNet2DConditionModel(**sd_unet.CONDITION["sd1"])),
        "vae": take(diffusers.AutoencoderKL(**sd_parts.AUTOENCODERS["sd"])),
        "text_encoder": take(transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT))),
    }
    pipe = diffusers.StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer(),
        scheduler=SAMPLERS["ddim"],
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    index = {"schedulers": {}, "parts": {}}
    for name, part in parts.items():
        config = part.config.to_diff_dict() if name == "text_encoder" else dict(part.config)
        shapes = {n: list(v.shape) for n, v in part.state_dict().items()}
        index["parts"][name] = {"class": type(part).__name__, "config": config, "shapes": shapes}
    arrays = {}
    for name, scheduler in SAMPLERS.items():
        pipe.scheduler = scheduler
        index["schedulers"][name] = {"_class_name": type(scheduler).__name__, **scheduler.config}
        arrays[name] = pipe(
            PROMPTS,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            negative_prompt=[NEGATIVE] * len(PROMPTS),
            latents=torch.tensor(noise("first", (2, 4, 8, 8)) * np.float32(1.7)),
            height=16,
            width=16,
            output_type="np",
        ).images
        print(name, arrays[name].shape, arrays[name].std())
    index |= {"prompts": PROMPTS, "negative": NEGATIVE, "steps": STEPS, "guidance": GUIDANCE}
    packed = np.frombuffer(json.dumps(index, default=lambda x: x.tolist()).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("sd_pipeline.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
