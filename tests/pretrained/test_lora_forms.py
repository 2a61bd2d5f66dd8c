"""What each form of a LoRA adds to a weight, against the formulas of the papers."""

import numpy as np
import pytest
from lora_files import CONV, NORM, PROJ, Q, compare, flat, lora_, merged, product, random
from safetensors.numpy import save_file

from jaxdiff.pretrained.lora import forms


def tucker(t, a, b):
    """sum_mn t[m, n, ..] a[m, o] b[n, i], as LyCORIS' `rebuild_tucker`."""
    return np.einsum("mnkl,mo,ni->oikl", t.astype(np.float64), a, b)


def dora(w, delta, m, axes, strength):
    total = w + delta
    length = np.sqrt((total**2).sum(axes, keepdims=True))
    return w + strength * (m * total / length - w)


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
