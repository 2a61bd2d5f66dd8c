"""What tests of LoRAs share: a small model, its modules, and a file for one of them."""

import json

import jax
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights
from support import REFERENCE, close, to_device

from jaxdiff.pretrained import files, lora
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import compvis, from_tensors, places, to_tensors

UNETS, _ = load(REFERENCE / "sd_unet.npz")
LORAS, _ = load(REFERENCE / "sd_lora.npz")
PEFT, PEFT_ARRAYS = load(REFERENCE / "sd_lora_peft.npz")
UP = "down_blocks.0.attentions.0"
BLOCK = f"{UP}.transformer_blocks.0"
Q, K, OUT, PROJ, CONV = (
    f"{BLOCK}.attn1.to_q",
    f"{BLOCK}.attn2.to_k",
    f"{BLOCK}.attn1.to_out.0",
    f"{UP}.proj_in",
    ("down_blocks.0.resnets.0.conv1"),
)
NORM = "down_blocks.0.resnets.0.norm1"
LAYER = "text_model.encoder.layers.0.self_attn"


def component(kind, json, tensors):
    one = family(kind)
    net = one.config(json)
    params = from_tensors(weights(tensors), one.shapes(net, json), one.rules(net, json), to_device)
    return Component(kind, json, net, params)


def theirs(part, params):
    """Parameters by the library's names, in its layout."""
    rules = family(part.kind).rules(part.config, part.json)
    return {name: np.asarray(x) for name, x in to_tensors(params, rules).items()}


def merged(model, path, weight=1.0, **options):
    """The tensors that a file changes, by component and name."""
    read = lora.read(path, model, **options)
    made = {}
    for name, own in read.items():
        part = model[name]
        after = theirs(part, lora.merge(part.params, [own], [weight]))
        before = theirs(part, part.params)
        made |= {(name, n): x for n, x in after.items() if not np.array_equal(x, before[n])}
    return made


def original(model, module):
    """CompVis' name of a module."""
    unet = model["unet"]
    rules, old = family(unet.kind).rules(unet.config, unet.json), compvis.unet_rules(unet.config, unet.json)
    for path in jax.tree_util.tree_leaves_with_path(unet.params):
        name = jax.tree_util.keystr(path[0], simple=True, separator="/")
        if next(places(name, rules)).name == f"{module}.weight":
            return next(places(name, old)).name.removesuffix(".weight")
    raise AssertionError(module)


flat = lambda module: module.replace(".", "_")
short = lambda module: module.removesuffix(".0")
head = lambda module: short(module).rpartition(".")[0]
last = lambda module: short(module).rpartition(".")[2]


def random(shape, name="x"):
    return noise(f"{name}{shape}", shape)


def noted(folder, fields, tensors=None):
    """A file with such metadata."""
    made = tensors or {f"unet.{Q}.lora_A.weight": random((2, 32)), f"unet.{Q}.lora_B.weight": random((32, 2))}
    text = fields if isinstance(fields, str) else json.dumps(fields)
    files.write_safetensors(folder / "f.safetensors", made, {"lora_adapter_metadata": text})
    return folder / "f.safetensors"


def refused(path, model, message, kind=ValueError):
    with pytest.raises(kind, match=message) as error:
        lora.read(path, model)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2500


def product(up, down, shape):
    return (up.reshape(up.shape[0], -1).astype(np.float64) @ down.reshape(down.shape[0], -1)).reshape(shape)


def compare(given, expected):
    assert given.keys() == expected.keys()
    for name, x in expected.items():
        close(given[name], x, 1e-6)


def lora_(w):
    o, *inner = w.shape
    a, b = random((3, *inner), "a"), random((o, 3, *[1] * (w.ndim - 2)), "b")
    return {"lora_down.weight": a, "lora_up.weight": b}, product(b, a, w.shape), 3
