"""Every layout of LoRA files: names against our parameters, numbers against the formulas of the papers and PEFT."""

import contextlib
import dataclasses
import json
import random as pyrandom

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weight, weights
from safetensors.numpy import save_file
from support import REFERENCE, close, to_device

from jaxdiff.pretrained import files, lora
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.lora import adapter_config, forms
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


@pytest.fixture(scope="module")
def model():
    text = component("CLIPTextModel", LORAS["text"]["config"], LORAS["text"]["tensors"])
    unet = component("UNet2DConditionModel", UNETS["sd1"]["config"], UNETS["sd1"]["shapes"])
    unet = dataclasses.replace(unet, params={"down_0": unet.params["down_0"]})  # a part of it is enough, and faster
    return {"unet": unet, "text_encoder": text, "text_encoder_2": text}


@pytest.fixture(scope="module")
def plain(model):
    return {name: theirs(part, part.params) for name, part in model.items()}


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
PEFT_PAIR = ("lora_A.weight", "lora_B.weight")
DOWN_UP = ("lora_down.weight", "lora_up.weight")
UNET_NAMES = {
    "diffusers": (lambda m, _: f"unet.{m}.", PEFT_PAIR),
    "diffusers, lora.down": (lambda m, _: f"unet.{m}.", ("lora.down.weight", "lora.up.weight")),
    "diffusers' first": (
        lambda m, _: f"unet.{head(m)}.processor.{last(m)}_lora.",
        ("down.weight", "up.weight"),
    ),
    "attention processors": (lambda m, _: f"{head(m)}.processor.{last(m)}_lora.", ("down.weight", "up.weight")),
    "PEFT": (lambda m, _: f"base_model.model.{m}.", PEFT_PAIR),
    "PEFT with the adapter's name": (
        lambda m, _: f"base_model.model.{m}.",
        ("lora_A.my-style.weight", "lora_B.my-style.weight"),
    ),
    "PEFT under diffusers": (lambda m, _: f"unet.base_model.model.{m}.", PEFT_PAIR),
    "PEFT's bare names": (lambda m, _: f"{m}.", PEFT_PAIR),
    "kohya": (lambda m, _: f"lora_unet_{flat(m)}.", DOWN_UP),
    "kohya, original names": (lambda _, o: f"lora_unet_{flat(o)}.", DOWN_UP),
    "OneTrainer": (lambda m, _: f"lora_unet.{m}.", DOWN_UP),
    "OneTrainer, original names": (lambda _, o: f"unet.{o}.", DOWN_UP),
    "ComfyUI": (lambda _, o: f"diffusion_model.{o}.", DOWN_UP),
    "ComfyUI, PEFT's pair": (lambda _, o: f"diffusion_model.{o}.", PEFT_PAIR),
    "single file": (lambda _, o: f"model.diffusion_model.{o}.", DOWN_UP),
    "SimpleTuner": (lambda m, _: f"lycoris_{flat(m)}.", DOWN_UP),
}
TEXT_NAMES = {
    "diffusers": ("text_encoder", lambda m: f"text_encoder.{m}.", PEFT_PAIR),
    "diffusers, linear layer": (
        "text_encoder",
        lambda m: f"text_encoder.{m}.",
        ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    ),
    "diffusers' first": (
        "text_encoder",
        lambda m: f"text_encoder.{head(m)}.to_{last(m).removesuffix('_proj')}_lora.",
        ("down.weight", "up.weight"),
    ),
    "diffusers, second": ("text_encoder_2", lambda m: f"text_encoder_2.{m}.", PEFT_PAIR),
    "without text_model": (
        "text_encoder",
        lambda m: f"text_encoder.{m.removeprefix('text_model.')}.",
        PEFT_PAIR,
    ),
    "kohya": ("text_encoder", lambda m: f"lora_te_{flat(m)}.", DOWN_UP),
    "kohya, SDXL's first": ("text_encoder", lambda m: f"lora_te1_{flat(m)}.", DOWN_UP),
    "kohya, SDXL's second": ("text_encoder_2", lambda m: f"lora_te2_{flat(m)}.", DOWN_UP),
    "OneTrainer": ("text_encoder", lambda m: f"lora_te1.{m}.", DOWN_UP),
    "OneTrainer, second": ("text_encoder_2", lambda m: f"lora_te2.{m}.", DOWN_UP),
    "OneTrainer, clip_l": ("text_encoder", lambda m: f"clip_l.{m}.", DOWN_UP),
    "OneTrainer, clip_g": ("text_encoder_2", lambda m: f"clip_g.{m}.", DOWN_UP),
    "ComfyUI": ("text_encoder", lambda m: f"text_encoders.clip_l.transformer.{m}.", DOWN_UP),
    "ComfyUI, Stable Diffusion 2": ("text_encoder", lambda m: f"text_encoders.clip_h.transformer.{m}.", DOWN_UP),
    "ComfyUI, second": ("text_encoder_2", lambda m: f"text_encoders.clip_g.transformer.{m}.", PEFT_PAIR),
}


def product(up, down, shape):
    return (up.reshape(up.shape[0], -1).astype(np.float64) @ down.reshape(down.shape[0], -1)).reshape(shape)


@pytest.mark.parametrize("layout", UNET_NAMES)
def test_names_of_the_unet(model, plain, tmp_path, layout):
    name, (down, up) = UNET_NAMES[layout]
    old = layout in ("diffusers' first", "attention processors")
    tensors, expected = {}, {}
    for module in (Q, K, OUT) if old else (Q, K, OUT, PROJ, CONV):
        start = name(module, original(model, module))
        w = plain["unet"][f"{module}.weight"]
        a, b = noise(f"{module}/a", (2, *w.shape[1:])), noise(f"{module}/b", (len(w), 2, *[1] * (w.ndim - 2)))
        tensors |= {start + down: a, start + up: b}
        expected["unet", f"{module}.weight"] = w + 0.5 * product(b, a, w.shape)
    save_file(tensors, tmp_path / "f.safetensors")
    compare(merged(model, tmp_path / "f.safetensors", 0.5), expected)


@pytest.mark.parametrize("layout", TEXT_NAMES)
def test_names_of_text_encoders(model, plain, tmp_path, layout):
    part, name, (down, up) = TEXT_NAMES[layout]
    tensors, expected = {}, {}
    for module in (f"{LAYER}.q_proj", f"{LAYER}.out_proj"):
        (own,) = [n for n in plain[part] if module.endswith(n.removesuffix(".weight").removeprefix("text_model."))]
        w = plain[part][own]
        a, b = noise(f"{module}/a", (2, w.shape[1])), noise(f"{module}/b", (len(w), 2))
        tensors |= {name(module) + down: a, name(module) + up: b}
        expected[part, own] = w + b @ a
    save_file(tensors, tmp_path / "f.safetensors")
    compare(merged(model, tmp_path / "f.safetensors"), expected)


def compare(given, expected):
    assert given.keys() == expected.keys()
    for name, x in expected.items():
        close(given[name], x, 1e-6)


def tucker(t, a, b):
    """sum_mn t[m, n, ..] a[m, o] b[n, i], as LyCORIS' `rebuild_tucker`."""
    return np.einsum("mnkl,mo,ni->oikl", t.astype(np.float64), a, b)


def random(shape, name="x"):
    return noise(f"{name}{shape}", shape)


def dora(w, delta, m, axes, strength):
    total = w + delta
    length = np.sqrt((total**2).sum(axes, keepdims=True))
    return w + strength * (m * total / length - w)


def lora_(w):
    o, *inner = w.shape
    a, b = random((3, *inner), "a"), random((o, 3, *[1] * (w.ndim - 2)), "b")
    return {"lora_down.weight": a, "lora_up.weight": b}, product(b, a, w.shape), 3


def locon_tucker(w):
    o, i, *window = w.shape
    a, t, b = random((3, i, 1, 1), "a"), random((3, 3, *window), "t"), random((o, 3, 1, 1), "b")
    delta = tucker(t, b[:, :, 0, 0].T, a[:, :, 0, 0])
    return {"lora_down.weight": a, "lora_mid.weight": t, "lora_up.weight": b}, delta, 3


def loha(w):
    o, inner = len(w), w[0].size
    f = {n: random((o, 3) if n.endswith("a") else (3, inner), n) for n in sorted(forms._HADA)}
    delta = product(f["hada_w1_a"], f["hada_w1_b"], w.shape) * product(f["hada_w2_a"], f["hada_w2_b"], w.shape)
    return f, delta, 3


def loha_tucker(w):
    o, i, *window = w.shape
    f = {n: random((3, o if n.endswith("a") else i), n) for n in sorted(forms._HADA)}
    f |= {f"hada_t{n}": random((3, 3, *window), f"t{n}") for n in (1, 2)}
    first, second = (tucker(f[f"hada_t{n}"], f[f"hada_w{n}_a"], f[f"hada_w{n}_b"]) for n in (1, 2))
    return f, first * second, 3


def kron(w1, w2, shape):
    return np.kron(w1.reshape(*w1.shape, *[1] * (w2.ndim - 2)).astype(np.float64), w2).reshape(shape)


def lokr(w, first, second):
    o, i, *window = w.shape
    f, rank = {}, None
    if first == "whole":
        w1 = f["lokr_w1"] = random((4, 2), "w1")
    else:
        f |= {"lokr_w1_a": random((4, 3), "w1a"), "lokr_w1_b": random((3, 2), "w1b")}
        w1, rank = f["lokr_w1_a"] @ f["lokr_w1_b"], 3
    if second == "whole":
        w2 = f["lokr_w2"] = random((o // 4, i // 2, *window), "w2")
    elif second == "pair":
        f |= {"lokr_w2_a": random((o // 4, 3), "w2a"), "lokr_w2_b": random((3, i // 2 * int(np.prod(window))), "w2b")}
        w2, rank = product(f["lokr_w2_a"], f["lokr_w2_b"], (o // 4, i // 2, *window)), 3
    else:
        f |= {"lokr_w2_a": random((3, o // 4), "w2a"), "lokr_w2_b": random((3, i // 2), "w2b")}
        f["lokr_t2"] = random((3, 3, *window), "t2")
        w2, rank = tucker(f["lokr_t2"], f["lokr_w2_a"], f["lokr_w2_b"]), 3
    return f, kron(w1, w2, w.shape), rank


def full(w):
    return {"diff": random(w.shape)}, random(w.shape), None


FORMS = {
    "LoRA": (lora_, (Q, PROJ, CONV)),
    "LoCon, Tucker": (locon_tucker, (CONV,)),
    "LoHa": (loha, (Q, PROJ, CONV)),
    "LoHa, Tucker": (loha_tucker, (CONV,)),
    "LoKr": (lambda w: lokr(w, "whole", "whole"), (Q, PROJ, CONV)),
    "LoKr, second decomposed": (lambda w: lokr(w, "whole", "pair"), (Q, PROJ, CONV)),
    "LoKr, first decomposed": (lambda w: lokr(w, "pair", "whole"), (Q, CONV)),
    "LoKr, both decomposed": (lambda w: lokr(w, "pair", "pair"), (Q, CONV)),
    "LoKr, Tucker": (lambda w: lokr(w, "whole", "core"), (CONV,)),
    "LoKr, all": (lambda w: lokr(w, "pair", "core"), (CONV,)),
    "full": (full, (Q, PROJ, CONV, NORM)),
}


@pytest.mark.parametrize("magnitude", ["", "of outputs", "of inputs"])
@pytest.mark.parametrize("form", FORMS)
def test_forms(model, plain, tmp_path, form, magnitude):
    make, targets = FORMS[form]
    tensors, expected = {}, {}
    for module in targets:
        w = plain["unet"][f"{module}.weight"]
        if magnitude and w.ndim < 2:
            continue
        parts, delta, rank = make(w)
        delta = delta * (1.5 / rank if rank else 1)
        start = f"lora_unet_{flat(module)}."
        tensors |= {start + name: x for name, x in parts.items()} | {start + "alpha": np.array(1.5, np.float32)}
        expected["unet", f"{module}.weight"] = w + 0.7 * delta
        if magnitude:
            axis = 0 if magnitude == "of outputs" else 1
            m = 1 + np.abs(random([n if at == axis else 1 for at, n in enumerate(w.shape)], "m"))
            tensors[start + "dora_scale"] = m
            axes = tuple(at for at in range(w.ndim) if at != axis)
            expected["unet", f"{module}.weight"] = dora(w.astype(np.float64), delta, m, axes, 0.7)
    save_file(tensors, tmp_path / "f.safetensors")
    compare(merged(model, tmp_path / "f.safetensors", 0.7), expected)
    assert merged(model, tmp_path / "f.safetensors", 0.0) == {}


@pytest.mark.parametrize("on_input", [0, 1])
def test_ia3(model, plain, tmp_path, on_input):
    tensors, expected = {}, {}
    for module in (Q, PROJ, CONV):
        w = plain["unet"][f"{module}.weight"]
        v = random((w.shape[1 if on_input else 0],))
        start = f"lora_unet_{flat(module)}."
        saved = v if w.ndim == 2 else v.reshape(1, -1, 1, 1)
        tensors |= {start + "weight": saved, start + "on_input": np.array(on_input)}
        along = [1, -1] if on_input else [-1, 1]
        expected["unet", f"{module}.weight"] = w * (1 + 0.7 * v.reshape(*along, *[1] * (w.ndim - 2)))
    save_file(tensors, tmp_path / "f.safetensors")
    compare(merged(model, tmp_path / "f.safetensors", 0.7), expected)


def test_biases_and_norms(model, plain, tmp_path):
    tensors, expected = {}, {}
    for module, names in ((NORM, ("w_norm", "b_norm")), (CONV, ("diff", "diff_b"))):
        for name, leaf in zip(names, ("weight", "bias"), strict=True):
            w = plain["unet"][f"{module}.{leaf}"]
            tensors[f"lora_unet_{flat(module)}.{name}"] = random(w.shape)
            expected["unet", f"{module}.{leaf}"] = w + 0.7 * random(w.shape)
    save_file(tensors, tmp_path / "f.safetensors")
    compare(merged(model, tmp_path / "f.safetensors", 0.7), expected)


@pytest.mark.parametrize("case", [name for name in PEFT if name != "fields"])
def test_what_peft_makes(model, tmp_path, case):
    tensors = {n: weight(n, tuple(s)) for n, s in PEFT[case]["shapes"].items()}
    tensors |= {n: 1 + np.abs(x) for n, x in tensors.items() if "magnitude" in n}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT[case]["config"]))
    made = merged(model, tmp_path)
    assert made
    for (_, name), x in made.items():
        module, _, leaf = name.rpartition(".")
        probe = noise(module, (x[0].size,)) if leaf == "weight" else None
        result = x.reshape(len(x), -1) @ probe if leaf == "weight" else x
        close(result, PEFT_ARRAYS[f"{case}/{module}" + ("" if leaf == "weight" else "/bias")], 1e-5)


def test_every_field_of_peft_is_known(model, tmp_path):
    save_file(
        {f"unet.{Q}.lora_A.weight": random((2, 32)), f"unet.{Q}.lora_B.weight": random((32, 2))}, tmp_path / "f.bin"
    )
    known = adapter_config.HONOURED | adapter_config.WITHOUT_EFFECT
    assert {*PEFT["fields"]} >= adapter_config.HONOURED
    for field in {*PEFT["fields"], "of_a_later_version"} - known:
        with pytest.raises(ValueError, match=f"unet.*{field}={{'a': 1}} is not supported|{field}={{'a': 1}} is not"):
            lora.read(noted(tmp_path, {f"unet.{field}": {"a": 1}}), model)


def noted(folder, fields, tensors=None):
    """A file with such metadata."""
    made = tensors or {f"unet.{Q}.lora_A.weight": random((2, 32)), f"unet.{Q}.lora_B.weight": random((32, 2))}
    text = fields if isinstance(fields, str) else json.dumps(fields)
    files.write_safetensors(folder / "f.safetensors", made, {"lora_adapter_metadata": text})
    return folder / "f.safetensors"


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({}, 1),
        ({"unet.r": 2, "unet.lora_alpha": 5}, 2.5),
        ({"unet.r": 2, "unet.lora_alpha": 5, "unet.use_rslora": True}, 5 / 2**0.5),
        ({"unet.r": 4, "unet.rank_pattern": {"to_q": 2}, "unet.lora_alpha": 6}, 3),
        ({"unet.lora_alpha": 5, "unet.alpha_pattern": {Q: 1}}, 0.5),
        ({"unet.lora_alpha": 5, "unet.alpha_pattern": {"to_k": 1, r"attn\d\.to_q": 3}}, 1.5),
        ({"unet.lora_alpha": 5, "unet.alpha_pattern": {"o_q": 1}}, 2.5),
        ({"text_encoder.lora_alpha": 5}, 1),
    ],
)
def test_scales_that_are_noted(model, tmp_path, fields, scale):
    (factors,) = lora.read(noted(tmp_path, fields), model)["unet"].values()
    assert float(factors["scale"]) == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{", "lora_adapter_metadata is not JSON"),
        ("[]", "lora_adapter_metadata is '\\[\\]': expected an object"),
        ({"unet.r": 3, "unet.lora_alpha": 1}, "its rank is 2, the adapter's config says 3"),
        ({"unet.lora_alpha": "much"}, "lora_alpha is 'much': expected a number"),
        ({"unet.lora_alpha": 1e999}, "lora_alpha is 'inf': expected a number"),
        ({"unet.use_rslora": "no"}, "use_rslora is 'no': expected true or false"),
        ({"unet.lora_alpha": 1, "unet.rank_pattern": {"to_q": "x"}}, "r is 'x': expected a number"),
        ({"unet.alpha_pattern": {"(": 1}}, "alpha_pattern has the pattern"),
        ({"unet.alpha_pattern": [1]}, "alpha_pattern is .* expected an object"),
        ({"unet.use_dora": True}, "use_dora is noted for unet, but it has no lora_magnitude_vector"),
        ({"unet.peft_type": "VERA"}, "peft_type 'VERA' is not supported"),
        ({"unet.init_lora_weights": "pissa"}, "has changed the base model too"),
        ({"unet.bias": "all"}, "bias=all is not supported"),
        ({"unet.fan_in_fan_out": True}, "fan_in_fan_out=True is not supported"),
    ],
)
def test_notes_that_are_refused(model, tmp_path, fields, message):
    refused(noted(tmp_path, fields), model, message)


def refused(path, model, message, kind=ValueError):
    with pytest.raises(kind, match=message) as error:
        lora.read(path, model)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2500


A, B = f"unet.{Q}.lora_A.weight", f"unet.{Q}.lora_B.weight"
PAIR = {A: random((2, 32)), B: random((32, 2))}
KOHYA = f"lora_unet_{flat(Q)}."


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({A: PAIR[A]}, f"missing: up of {A}"),
        ({B: PAIR[B]}, f"missing: down of {B}"),
        ({KOHYA + "hada_w1_a": random((32, 2))}, "missing: hada_w1_b and hada_w2_a and hada_w2_b of"),
        ({KOHYA + "lokr_w1": random((4, 2))}, "missing: lokr_w2.* of"),
        ({KOHYA + "alpha": np.ones((), np.float32)}, "missing: the factors of"),
        ({**PAIR, KOHYA + "diff": random((32, 32))}, "missing: nothing that goes with"),
        ({**PAIR, KOHYA + "lora_down.weight": PAIR[A]}, "twice: "),
        ({**PAIR, "unet.nothing.lora_A.weight": PAIR[A]}, r"unexpected: unet.nothing.lora_A.weight \(2, 32\)"),
        ({**PAIR, f"unet.{Q}.bias": PAIR[A]}, f"unexpected: unet.{Q}.bias"),
        ({A: random((2, 31)), B: PAIR[B]}, "wrong: .*to_q.* "),
        ({A: random((4, 32)), B: PAIR[B]}, "its down has rank 4, its up 2"),
        ({A: np.full((2, 32), np.inf, np.float32), B: PAIR[B]}, "down is not finite"),
        ({**PAIR, f"unet.{Q}.alpha": np.float32([1, 2])}, r"alpha is \(2,\), expected one number"),
        ({**PAIR, f"unet.{Q}.alpha": np.float32([np.nan])}, "alpha is not finite"),
        ({**PAIR, f"unet.{Q}.alpha": np.zeros((), np.float32)}, "would change nothing: alpha is 0"),
        ({**PAIR, f"unet.{Q}.dora_scale": random((7, 1))}, r"its magnitude is \(7, 1\)"),
        ({KOHYA + "diff_b": random((32,))}, "there is no bias here"),
        ({KOHYA + "diff_b": random((32,)), KOHYA + "dora_scale": random((32, 1))}, "missing: the factors of"),
        (
            {KOHYA + "weight": random((32,)), KOHYA + "on_input": np.ones(()), KOHYA + "dora_scale": random((32, 1))},
            "IA3 takes no magnitude",
        ),
        ({KOHYA + "lokr_w1": random((4, 2)), KOHYA + "lokr_w2": random((8, 8))}, "wrong: "),
        ({KOHYA + "oft_blocks": random((2, 2))}, "another kind \\(OFT"),
        ({KOHYA + "a1.weight": random((2, 2))}, "another kind \\(GLoRA"),
        ({KOHYA + "set_weight": random((2, 2))}, "another kind"),
        ({f"{n}.weight": random((2, 2)) for n in range(4000)}, r"4000 tensors do not fit .* and 3990 more$"),
        ({"lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": random((2, 2))}, "a LoRA for Flux: this model is"),
        ({}, "it is empty"),
    ],
)
def test_what_is_refused(model, tmp_path, tensors, message):
    save_file(tensors, tmp_path / "f.safetensors")
    refused(tmp_path / "f.safetensors", model, message)


def test_a_lora_of_another_model(model, tmp_path):
    made = {
        f"lora_unet_{flat(K)}.lora_down.weight": random((2, 2048)),
        f"lora_unet_{flat(K)}.lora_up.weight": random((32, 2)),
    }
    save_file(made, tmp_path / "f.safetensors")
    message = r"is a LoRA for SDXL \(cross-attention to 2048 numbers\): this model is a U-Net \(cross-attention to 24"
    refused(tmp_path / "f.safetensors", model, message)
    files.write_safetensors(tmp_path / "f.safetensors", {"x.diff": random((2, 2))}, {"ss_base_model_version": "sdxl"})
    refused(tmp_path / "f.safetensors", model, r"unexpected: x.diff \(2, 2\) \(it was trained for sdxl\)$")
    one = {name: part for name, part in model.items() if name != "text_encoder_2"}
    name = f"lora_te2_{flat(LAYER)}_q_proj."
    save_file(
        {name + "lora_down.weight": random((2, 32)), name + "lora_up.weight": random((32, 2))},
        tmp_path / "f.safetensors",
    )
    refused(tmp_path / "f.safetensors", one, "a LoRA for SDXL, with a second text encoder: this model is")
    refiner = {"text_encoder_2": model["text_encoder"]}
    assert [*lora.read(tmp_path / "f.safetensors", refiner)] == ["text_encoder_2"]


def test_any_tensors_are_read_or_refused(model, tmp_path):
    """Whole forms and stray roles, of random shapes: a change that can be merged, or a ValueError."""
    rng = pyrandom.Random(0)
    pair = ["lora_down.weight", "lora_up.weight"]
    own = [sorted(roles) for _, roles in forms.FORMS if roles <= forms.MATRICES - {"down", "up"}]
    whole = [pair, [*pair, "lora_mid.weight"], ["diff"], ["weight", "on_input"], *own]
    more = ["alpha", "scale", "dora_scale", "diff_b", "lora_magnitude_vector", "lora_B.bias", "bias", "w_norm"]
    sizes = [(), (0,), (1,), (32,), (2, 32), (32, 2), (32, 32), (2, 2), (0, 32), (2, 32, 3, 3), (32, 1, 1, 1), (2, 288)]
    for _ in range(150):
        start = f"lora_unet_{flat(rng.choice([Q, PROJ, CONV, NORM]))}."
        names = [*rng.choice(whole), *rng.sample(more, rng.randrange(2))]
        save_file({start + name: random(rng.choice(sizes)) for name in names}, tmp_path / "f.safetensors")
        with contextlib.suppress(ValueError):
            read = lora.read(tmp_path / "f.safetensors", model)
            lora.merge(model["unet"].params, [read["unet"]], [1.0])


def test_their_order_and_number_do_not_matter(model, plain, tmp_path):
    """Several change the weights that are there, and the same twice is once with twice the weight."""
    start = f"lora_unet_{flat(Q)}."
    save_file({**PAIR, f"unet.{Q}.dora_scale": 1 + np.abs(random((32, 1)))}, tmp_path / "dora.safetensors")
    save_file({start + "diff": random((32, 32))}, tmp_path / "full.safetensors")
    dora, full = (lora.read(tmp_path / f"{name}.safetensors", model)["unet"] for name in ("dora", "full"))
    params = model["unet"].params
    one = lora.merge(params, [dora, full], [0.4, 0.7])
    jax.tree.map(np.testing.assert_array_equal, lora.merge(params, [full, dora], [0.7, 0.4]), one)
    twice, once = lora.merge(params, [dora, dora], [0.4, 0.4]), lora.merge(params, [dora], [0.8])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), twice, once)


def test_files_and_weights(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b:2"]
    for path in paths:
        path.touch()
    first, second = paths
    assert lora.parse([first]) == [(first, 1.0)]
    assert lora.parse([f"{first}:0.5", str(second)]) == [(first, 0.5), (second, 1.0)]
    assert lora.parse([f"{second}:-2"]) == [(second, -2.0)]
    assert lora.parse([first, f"{first}:0.5", (first, 0.25)]) == [(first, 1.75)]
    assert lora.parse([first, tmp_path / "x" / ".." / "a.safetensors"]) == [(first, 2.0)]
    assert lora.parse({first: 0.5}) == [(first, 0.5)]
    for wrong in ("nan", "inf", "-inf", "1e999"):
        with pytest.raises(ValueError, match="expected a finite number"):
            lora.parse([f"{first}:{wrong}"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no LoRA in"):
        lora.read(tmp_path / "empty", {})


def test_a_dora_is_written_and_read_again(model, tmp_path):
    tensors = {}
    for module, shape in ((Q, (32, 32)), (CONV, (32, 32, 3, 3))):
        parts, _, _ = lora_(np.zeros(shape))
        tensors |= {f"lora_unet_{flat(module)}.{name}": x for name, x in parts.items()}
        tensors[f"lora_unet_{flat(module)}.dora_scale"] = random((32, *[1] * (len(shape) - 1)))
    save_file(tensors, tmp_path / "f.safetensors")
    read = lora.read(tmp_path / "f.safetensors", model)
    lora.write(tmp_path / "again.safetensors", read, model)
    jax.tree.map(np.testing.assert_array_equal, lora.read(tmp_path / "again.safetensors", model), read)
    save_file({KOHYA + "diff": random((32, 32))}, tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match="has diff: only LoRA and DoRA can be written"):
        lora.write(tmp_path / "x.safetensors", lora.read(tmp_path / "f.safetensors", model), model)


def test_another_weight_compiles_nothing(model, tmp_path):
    save_file({**PAIR, f"unet.{Q}.dora_scale": random((32, 1))}, tmp_path / "f.safetensors")
    one = lora.read(tmp_path / "f.safetensors", model)["unet"]
    merge = jax.jit(lambda *args: lora.merge(*args))  # a cache of its own
    for w in (0.0, 1.0):
        merge(model["unet"].params, [one], jnp.array([w]))
    assert merge._cache_size() == 1
