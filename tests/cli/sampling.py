"""`jaxdiff sample` on the host alone: everything is real but for the compiled program, which gives grey pictures."""

import functools
import json

import jax
import numpy as np
from PIL import Image
from pipelines import directory, own, small
from reference.sd_weights import weights
from safetensors.numpy import save_file

from jaxdiff import experiment, loading
from jaxdiff.cli.main import main
from jaxdiff.pipelines import plan

LOADED = {}
"""Pipelines by what they were loaded with; each test module has one place."""
MODELS = {"sd": {}, "inpaint": {"unet": "tiny unet_inpaint"}, "edit": {"unet": "tiny unet_edit"}}
MODELS |= {"upscale": {"unet": "tiny unet_upscale"}}


def make_place(top):
    """Models, and what goes with them; `runs/NAME` are runs of our own, by what they are told."""
    for name, parts in MODELS.items():
        directory.save(top / name, {**small.TINY, **parts})
    directory.save(top / "xl", small.TINY_XL, _class_name="StableDiffusionXLPipeline")
    np.save(top / "latents.npy", np.ones((2, 8, 8, 4), np.float32))
    directory.save_part(top / "control", "tiny control")
    where = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file(weights({f"{where}.lora_A.weight": (2, 8), f"{where}.lora_B.weight": (8, 2)}), top / "lora.safetensors")
    Image.fromarray(small.picture("image")[0]).save(top / "image.png")
    Image.fromarray(small.picture("small", 8)[0]).save(top / "small.png")
    Image.fromarray((small.mask()[0, ..., 0] * 255).astype(np.uint8)).save(top / "mask.png")
    np.save(top / "noise.npy", np.ones((2, 8, 8, 3)))
    np.save(top / "whole.npy", np.ones((2, 8, 8, 3), int))
    np.save(top / "nan.npy", np.full((2, 8, 8, 3), np.nan))
    np.savez(top / "noise.npz", np.ones((2, 8, 8, 3)))
    (top / "folder").mkdir()
    for told in own.NETS:
        (top / "runs" / told).mkdir(parents=True)
    return top


def grey(model, whole, batch, host=True):
    """What a pipeline's program gives, in its shapes."""
    n, h, w = len(batch["keys"]), batch["size"].height, batch["size"].width
    out = {"latents": np.zeros((n, h, w, model.channels), np.float32), "bad": np.zeros(n, bool)}
    return {**out, "pixels": np.full((n, h * model.factor, w * model.factor, 3), 128, np.uint8)}


def without_programs(monkeypatch):
    """Patches what is slow; gives the list of plans that calls were made with."""
    real, plans, make = loading.load, [], plan.make

    def load(*args, **options):
        asked = repr((args, options))
        if asked not in LOADED:
            pipe = LOADED[asked] = real(*args, **{"devices": jax.devices()[:1], **options})
            pipe._run = functools.partial(grey, pipe.model)
        return LOADED[asked]

    def record(*args, **options):
        plans.append(options)
        return make(*args, **options)

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(experiment, "open_run", own.open_run)
    monkeypatch.setattr(plan, "make", record)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    return plans


def run(out, model, args):
    """The settings that the picture carries."""
    main(["sample", "--model", model, "--out", str(out), *args])
    return json.loads(Image.open(out).text["parameters"])
