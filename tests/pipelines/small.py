"""Small Stable Diffusion models with weights by formula: those that tests/reference/ made pictures with, and tinier
ones that compile in a few seconds, whose names begin with `tiny`.
"""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from reference.sd_weights import load, noise, weights

from jaxdiff.data import tokenizer_clip
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import flatten, from_tensors, unflatten

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
PLAIN, PLAIN_PICTURES = load(REFERENCE / "sd_pipeline.npz")
TASKS, TASK_PICTURES = load(REFERENCE / "sd_tasks.npz")
SEEN, SEEN_PICTURES = load(REFERENCE / "sd_pictures.npz")
UNEVEN, UNEVEN_OUTPUTS = load(REFERENCE / "sd_uneven.npz")
TOLD, TOLD_OUTPUTS = load(REFERENCE / "sd_guidance.npz")
PROMPTS, NEGATIVE, GUIDANCE = PLAIN["prompts"], PLAIN["negative"], PLAIN["guidance"]
SD1 = {"unet": "unet", "vae": "vae", "text_encoder": "text"}


@functools.cache
def tokenizer():
    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "vocab.json").write_bytes(bytes(saved["vocab"]))
        (pathlib.Path(folder) / "merges.txt").write_bytes(bytes(saved["merges"]))
        return tokenizer_clip.read(folder)


_UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
}
_VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}
_TEXT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_TEXT, "image_size": 16, "patch_size": 8, "projection_dim": 8}
_CONTROL = {name: value for name, value in _UNET.items() if name not in ("sample_size", "up_block_types")}
_JSON = {
    "tiny unet": _UNET,
    "tiny unet_inpaint": {**_UNET, "in_channels": 9},
    "tiny unet_edit": {**_UNET, "in_channels": 8},
    "tiny unet_upscale": {**_UNET, "in_channels": 7, "num_class_embeds": 1000},
    "tiny unet_xl": {
        **_UNET,
        "cross_attention_dim": 16,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 32,
    },
    "tiny text_2": {
        "_class_name": "CLIPTextModelWithProjection",
        **_TEXT,
        "projection_dim": 8,
        "vocab_size": 2017,
        "eos_token_id": 2016,
    },
    "tiny unet_pixel": {
        **{name: value for name, value in _UNET.items() if name not in ("cross_attention_dim", "attention_head_dim")},
        "_class_name": "UNet2DModel",
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
        "add_attention": False,
    },
    "tiny vae": _VAE,
    "tiny text": {"_class_name": "CLIPTextModel", **_TEXT, "vocab_size": 2017, "eos_token_id": 2016},
    "tiny control": {**_CONTROL, "_class_name": "ControlNetModel", "conditioning_embedding_out_channels": [4, 4]},
    "tiny adapter": {"_class_name": "T2IAdapter", "channels": [8, 8], "num_res_blocks": 1, "downscale_factor": 2},
    "tiny vision": {"_class_name": "CLIPVisionModelWithProjection", **_VISION},
    "tiny safety": {"_class_name": "StableDiffusionSafetyChecker", "vision_config": _VISION, "projection_dim": 8},
}
TINY = {"unet": "tiny unet", "vae": "tiny vae", "text_encoder": "tiny text"}
TINY_XL = {**TINY, "unet": "tiny unet_xl", "text_encoder_2": "tiny text_2"}


@functools.cache
def part(name):
    """A network of sd_tasks.npz, sd_pictures.npz or sd_uneven.npz, or a tiny one."""
    return (
        tiny(_JSON[name]) if name in _JSON else component({**UNEVEN, **TOLD, **SEEN["parts"], **TASKS["parts"]}[name])
    )


def tiny(json):
    one = family(json["_class_name"])
    net = one.config(json)
    paths = flatten(one.shapes(net, json))
    made = {path: noise(path, x.shape) * np.float32((3 / np.prod(x.shape[:-1])) ** 0.5) for path, x in paths.items()}
    made |= {path: np.ones(x.shape, np.float32) for path, x in paths.items() if path.endswith("scale")}
    return Component(json["_class_name"], json, net, unflatten({path: jnp.asarray(x) for path, x in made.items()}))


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
    return DiffusionPipeline(bundle(names, scheduler, **(index or {})), devices=jax.devices()[:1], **options)


def first(height=8, width=8):
    """The noise that the fixtures start from."""
    return noise("first", (2, 4, height, width)).transpose(0, 2, 3, 1) * np.float32(1.7)


def picture(name, side=16):
    return ((noise(name, (2, side, side, 3)) + 1) * 127.5).round().astype(np.uint8)


def mask():
    return (noise("mask", (2, 16, 16, 1)) > 0.2).astype(np.float32)
