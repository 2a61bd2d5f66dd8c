"""Small Stable Diffusion models with weights by formula, as tests/reference/ made their pictures with."""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from reference.sd_weights import load, noise, weights

from jaxdiff.data import tokenizer_clip
from jaxdiff.pipelines.latent import LatentPipeline
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import from_tensors

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
PLAIN, PLAIN_PICTURES = load(REFERENCE / "sd_pipeline.npz")
TASKS, TASK_PICTURES = load(REFERENCE / ("sd_tasks.npz" if (REFERENCE / "sd_tasks.npz").exists() else "sd_pipeline.npz"))
PROMPTS, NEGATIVE, GUIDANCE = PLAIN["prompts"], PLAIN["negative"], PLAIN["guidance"]
SD1 = {"unet": "unet", "vae": "vae", "text_encoder": "text"}
NAMES = {"StableDiffusionUpscalePipeline": {"low_res_scheduler": "DDPMScheduler"}}


@functools.cache
def tokenizer():
    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "vocab.json").write_bytes(bytes(saved["vocab"]))
        (pathlib.Path(folder) / "merges.txt").write_bytes(bytes(saved["merges"]))
        return tokenizer_clip.read(folder)


@functools.cache
def part(name):
    """A network of sd_tasks.npz."""
    if "tasks" not in TASKS: return component(PLAIN["parts"][{"text":"text_encoder"}.get(name, name)])
    return component(TASKS["parts"][name])


def component(entry):
    one, json = family(entry["class"]), entry["config"]
    net = one.config(json)
    tensors, rules = weights(entry["shapes"]), one.rules(net, json)
    params = from_tensors(tensors, one.shapes(net, json), rules, lambda path, x: jnp.asarray(x))
    return Component(entry["class"], json, net, params)


def bundle(names=SD1, scheduler="ddim", **index):
    """A model directory as `read_directory` reads it; `names` are parts by component."""
    components = {}
    for name, chosen in names.items():
        listed = {name: chosen} if isinstance(chosen, str) else {f"{name}_{n}": one for n, one in enumerate(chosen)}
        components |= {one: part(entry) for one, entry in listed.items()}
    texts = [name for name in components if name.startswith("text_encoder")]
    index = {"_class_name": "StableDiffusionPipeline", **index}
    index |= {name: ["diffusers", one.kind] for name, one in components.items()}
    index |= {"scheduler": ["diffusers", "DDIMScheduler"]}
    words = {name.replace("text_encoder", "tokenizer"): tokenizer() for name in texts}
    index |= {name: ["transformers", "CLIPTokenizer"] for name in words}
    return Bundle(index["_class_name"], index, components, words, {"scheduler": PLAIN["schedulers"][scheduler]})


def pipeline(names=SD1, scheduler="ddim", index=None, **options):
    """On one device: eight virtual ones would each make a picture."""
    return LatentPipeline(bundle(names, scheduler, **(index or {})), devices=jax.devices()[:1], **options)


def first(side=8):
    """The noise that the fixtures start from."""
    return noise("first", (2, 4, side, side)).transpose(0, 2, 3, 1) * np.float32(1.7)


def picture(name, side=16):
    return ((noise(name, (2, side, side, 3)) + 1) * 127.5).round().astype(np.uint8)


def mask():
    return (noise("mask", (2, 16, 16, 1)) > 0.2).astype(np.float32)
