"""Stable Diffusion 1.5, full size, float32, beside PyTorch eager's on the CPU: the U-Net, and whole pictures.

    python scripts/benchmark_sd.py [--rounds 3] [--what 32 64 picture load]

The reference library's random weights are read into ours, so both sides compute the same numbers; their difference is
printed, then times, of sides that take turns in one process. `32` and `64` are one U-Net call for a guided pair at
latents of that side; `picture` is tokens to pixels: a guided 256x256 picture in 4 steps. Needs the extra `reference`.
Peak memory is the process', which holds both sides: two copies of 860M, 123M and 84M parameters are 8.5 GB. `load`
writes the model to disk, as a directory and as one file of 4.3 GB, and loads each in a new process: how much of the
host's memory that takes beyond what the process had before, in parts of the file's or the directory's size. On a CPU
this is where the parameters stay, so it cannot be below 1.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from jaxdiff import sampling
from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.diffusion.guidance import classifier_free
from jaxdiff.metrics import speed
from jaxdiff.models.autoencoder_kl import AutoencoderKL as Autoencoder
from jaxdiff.models.autoencoder_kl import unscaled
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNet
from jaxdiff.pretrained import scheduler, single_file
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import from_tensors
from jaxdiff.pretrained.write import write_directory
from jaxdiff.typing import Cond

TOKENS, STEPS, GUIDANCE = 77, 4, 7.5
TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "eos_token_id": 49407,
}
BLOCKS = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}


def ours(part):
    """config.json, our config and parameters for a part of the reference library."""
    config = part.config.to_diff_dict() if isinstance(part, CLIPTextModel) else dict(part.config)
    one = family(type(part).__name__)
    net = one.config(config)
    tensors = {name: tensor.numpy() for name, tensor in part.state_dict().items()}
    params = from_tensors(tensors, one.shapes(net, config), one.rules(net, config), lambda path, x: jnp.asarray(x))
    return config, net, params


def compare_calls(unet, net, params, side, rounds):
    """One U-Net call for a guided pair."""
    rng = np.random.default_rng(0)
    x, context = rng.normal(size=(2, side, side, 4)), rng.normal(size=(2, TOKENS, 768))
    x, context, t = x.astype(np.float32), context.astype(np.float32), np.full(2, 500)
    apply = jax.jit(lambda params, x, t, context: UNet(net).apply({"params": params}, x, t, Cond(context=context)))
    inputs = [torch.tensor(a) for a in (x.transpose(0, 3, 1, 2), t, context)]
    call = lambda: jax.block_until_ready(apply(params, x, t.astype(np.float32), context))
    reference = lambda: unet(*inputs).sample
    compare_outputs(call(), reference().permute(0, 2, 3, 1))
    compare(f"{side}x{side}", call, reference, rounds)


def compare_pictures(unet, net, params, rounds):
    """Tokens to pixels."""
    text, vae = CLIPTextModel(CLIPTextConfig(**TEXT)).eval(), AutoencoderKL(**BLOCKS).eval()
    ddim = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    )
    parts = {"tokenizer": None, "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = StableDiffusionPipeline(vae=vae, text_encoder=text, unet=unet, scheduler=ddim, **parts)
    pipe.set_progress_bar_config(disable=True)
    tokens = np.random.default_rng(1).integers(0, 49000, (2, TOKENS))
    tokens[:, -1] = 49407
    latents = np.random.default_rng(2).normal(size=(1, 32, 32, 4)).astype(np.float32)

    def reference():
        prompt, negative = text(torch.tensor(tokens)).last_hidden_state.split(1)
        return pipe(
            prompt_embeds=prompt,
            negative_prompt_embeds=negative,
            latents=torch.tensor(latents.transpose(0, 3, 1, 2)),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="np",
        ).images

    (_, text_net, text_params), (_, vae_net, vae_params) = ours(text), ours(vae)
    process = scheduler.process({"_class_name": "DDIMScheduler", **ddim.config})
    table = sampling.make_table(process.sampler, process.schedule, STEPS, process.times(STEPS), **process.options)
    table = jax.tree.map(lambda a: np.asarray(a, np.float32), sampling.with_aux(table, guidance=GUIDANCE))

    @jax.jit
    def draw(params, text_params, vae_params, table, tokens, x):
        states = ClipText(text_net).apply({"params": text_params}, tokens)[0]
        network = lambda params, x, t, cond: UNet(net).apply({"params": params}, x, t, cond)
        cond, null = Cond(context=states[:1]), Cond(context=states[1:])
        denoise = classifier_free(network, params, cond, null, process.schedule, process.kind)
        z = unscaled(vae_net, sampling.run(table, denoise, x, jax.random.key(0)))
        return Autoencoder(vae_net).apply({"params": vae_params}, z, method="decode")

    call = lambda: jax.block_until_ready(draw(params, text_params, vae_params, table, jnp.asarray(tokens), latents))
    compare_outputs(jnp.clip(call() / 2 + 0.5, 0, 1), reference())
    compare("picture", call, reference, rounds)


LOAD = """
import sys, time, jax, numpy as np
from jaxdiff import load
jax.device_put(np.zeros(3)).block_until_ready()
memory = lambda field: next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))
before, began = memory("VmRSS:"), time.perf_counter()
pipe = load(sys.argv[1], **({"tokenizer": sys.argv[2]} if sys.argv[2:] else {}))
jax.block_until_ready(pipe.params)
print(f"{memory('VmHWM:') - before} {time.perf_counter() - began:.1f}")
"""


def measure_loading(unet):
    """Peak memory of `jaxdiff.load`, at full size."""
    parts = {"unet": unet, "vae": AutoencoderKL(**BLOCKS), "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT))}
    components = {name: Component(type(part).__name__, *ours(part)) for name, part in parts.items()}
    index = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {name: ["diffusers", part.kind] for name, part in components.items()}
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    words = ClipTokenizer({"<|startoftext|>": 0, "<|endoftext|>": 1}, ())
    ddim = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "clip_sample": False}
    bundle = Bundle(index["_class_name"], index, components, {"tokenizer": words}, {"scheduler": ddim})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        write_directory(bundle, path / "directory")
        single_file.write(bundle, path / "one.safetensors")
        for name, options in (("directory", ()), ("one.safetensors", (str(path / "directory" / "tokenizer"),))):
            files = [path / name] if (path / name).is_file() else list((path / name).rglob("*.safetensors"))
            size = sum(file.stat().st_size for file in files)
            command = [sys.executable, "-c", LOAD, str(path / name), *options]
            took, seconds = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            print(f"load {name}: {size / 1e9:.2f} GB, peak {int(took) / size:.3f} of that, {seconds} s", flush=True)


def compare(name, ours, theirs, rounds):
    """Prints medians and the median ratio with its spread; each side has been called once."""
    times = speed.alternate({"jaxdiff": lambda i: ours(), "torch": lambda i: theirs()}, rounds)
    ratio = times["jaxdiff"] / times["torch"]
    medians = ", ".join(f"{side} {np.median(took):.2f} s" for side, took in times.items())
    print(f"{name}: {medians}, ratio {np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})", flush=True)


def compare_outputs(ours, theirs):
    """Prints the largest difference, relative to the largest number."""
    theirs = np.asarray(theirs)
    print(f"difference {np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max():.1e} of the largest", flush=True)


@torch.no_grad()
def main():
    """The comparisons that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument(
        "--what", nargs="+", choices=["32", "64", "picture", "load"], default=["32", "64", "picture", "load"]
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval()
    _, net, params = ours(unet)
    for what in args.what:
        if what == "picture":
            compare_pictures(unet, net, params, args.rounds)
        elif what == "load":
            measure_loading(unet)
        else:
            compare_calls(unet, net, params, int(what), args.rounds)
    status = pathlib.Path("/proc/self/status").read_text()
    print(f"peak memory {int(status.split('VmHWM:')[1].split()[0]) / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
