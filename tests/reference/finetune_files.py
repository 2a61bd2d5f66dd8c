"""Pictures that diffusers (0.42.1, peft) makes with the files of our runs: finetune_files.npz.

    PYTHONPATH=.:tests python tests/reference/finetune_files.py

The models are those of finetune.npz; weights of the runs are by formula, and the files are written by jaxdiff. All are
loaded as users load them, but for DoRA of kohya's layout: diffusers leaves its magnitudes out ("we are going to filter
out the keys associated to dora_scale"), so the file goes through its converter by itself, which knows them.
"""

import pathlib
import sys
import tempfile

import diffusers
import numpy as np
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import finetune_files_cases as files
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import load_file
from sd_weights import load
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from jaxdiff.tasks import lora

HERE = pathlib.Path(__file__)
INDEX, _ = load(HERE.with_name("finetune.npz"))
NAMES = {
    "controlnet": ("StableDiffusionControlNetPipeline", "StableDiffusionXLControlNetPipeline"),
    "t2i_adapter": ("StableDiffusionAdapterPipeline", "StableDiffusionXLAdapterPipeline"),
    "instruct": ("StableDiffusionInstructPix2PixPipeline", ""),
    "inpaint": ("StableDiffusionInpaintPipeline", ""),
}
PLAIN = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def opened(name, xl, folder, **parts):
    """The pipeline of a directory, without what SDXL's draws on pictures."""
    bare = {"add_watermarker": False} if xl else {"safety_checker": None}
    kind = getattr(diffusers, NAMES.get(name, PLAIN)[xl])
    pipe = kind.from_pretrained(folder, local_files_only=True, **bare, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe, **more):
    options = {"num_inference_steps": files.STEPS, "guidance_scale": files.GUIDANCE, "output_type": "np"}
    if pipe.unet.config.in_channels != 8:  # InstructPix2Pix takes the picture's own size
        options |= {"height": files.SIZE, "width": files.SIZE}
    return pipe(prompt=files.PROMPT, **more, **options, latents=torch.tensor(files.first())).images[0]


def dora(pipe, path):
    """Loads a file of kohya's layout with its magnitudes."""
    tensors, alphas = _convert_non_diffusers_lora_to_diffusers(load_file(path))
    for name, x in tensors.items():  # as PEFT has them, of a layer and of a convolution
        if "magnitude" in name:
            tensors[name] = x.flatten() if x.ndim == 2 else x.reshape(1, -1, 1, 1)
    pipe.load_lora_into_unet(tensors, network_alphas=alphas, unet=pipe.unet)
    pipe.load_lora_into_text_encoder(tensors, network_alphas=alphas, text_encoder=pipe.text_encoder)


def picture(case, model, out):
    """What diffusers makes with the file."""
    name, version, layout = case.split()
    xl, hint = version == "xl", torch.tensor(files.hint()).permute(0, 3, 1, 2).float() / 255
    if name in ("instruct", "inpaint"):
        pipe = opened(name, xl, out)
        if name == "instruct":
            return drawn(pipe, image=hint, image_guidance_scale=files.PICTURE_GUIDANCE)
        return drawn(pipe, image=hint * 2 - 1, mask_image=torch.tensor(files.mask())[None, None])
    if name == "controlnet":
        pipe = opened(name, xl, model, controlnet=diffusers.ControlNetModel.from_pretrained(out))
        return drawn(pipe, image=hint)
    if name == "t2i_adapter":
        pipe = opened(name, xl, model, adapter=diffusers.T2IAdapter.from_pretrained(out))
        return drawn(pipe, image=hint)
    pipe = opened(name, xl, model)
    if name == "dora" and layout == "kohya":
        dora(pipe, out)
    elif isinstance(files.CASES[case], lora.Config):
        pipe.load_lora_weights(str(out.parent), weight_name=out.name)
    elif name == "textual_inversion" and xl:
        for tensor, suffix in (("clip_l", ""), ("clip_g", "_2")):
            parts = {part: getattr(pipe, part + suffix) for part in ("text_encoder", "tokenizer")}
            pipe.load_textual_inversion(load_file(out)[tensor], token="<toy>", **parts)
    elif name == "textual_inversion":
        pipe.load_textual_inversion(str(out))
    elif name == "ip_adapter":
        pipe.image_encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(model.with_name("vision"))
        side = {"size": {"shortest_edge": files.SIZE}, "crop_size": {"height": files.SIZE, "width": files.SIZE}}
        pipe.feature_extractor = CLIPImageProcessorPil(**side)
        pipe.load_ip_adapter(str(out.parent), subfolder="", weight_name=out.name, image_encoder_folder=None)
        return drawn(
            pipe, ip_adapter_image=diffusers.image_processor.VaeImageProcessor.numpy_to_pil(files.hint() / 255)
        )
    return drawn(pipe)


@torch.no_grad()
def main():
    # a picture under a mask is its mean, and not drawn: the noise is no part of a file
    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        files.save_vision(root / "vision")
        bases = {version: files.save_base(INDEX[version], root / version) for version in INDEX}
        arrays |= {f"base {version}": drawn(opened("", version == "xl", bases[version])) for version in INDEX}
        for case in files.CASES:
            own = root / case.replace(" ", "_")
            own.mkdir()
            model = bases[case.split()[1]]
            out = files.write(case, *files.prepared(case, model, own), own)
            arrays[case] = picture(case, model, out)
            far = np.abs(arrays[case] - arrays[f"base {case.split()[1]}"]).max() * 255
            print(f"{case}: up to {far:.1f}/255 from the base's, deviation {arrays[case].std() * 255:.1f}", flush=True)
    packed = {name: (x * 65535).round().astype(np.uint16) for name, x in arrays.items()}
    np.savez_compressed(HERE.with_name("finetune_files.npz"), **packed)


if __name__ == "__main__":
    main()
