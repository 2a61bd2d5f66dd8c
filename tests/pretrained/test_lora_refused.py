"""LoRA files that are for another model, damaged or odd; and how they are written and weighed."""

import contextlib
import random as pyrandom

import jax
import numpy as np
import pytest
from lora_files import CONV, LAYER, NORM, PROJ, K, Q, flat, lora_, random, refused
from safetensors.numpy import save_file

from jaxdiff.metrics.speed import compilations
from jaxdiff.pretrained import files, lora
from jaxdiff.pretrained.lora import forms

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
    lora.write(tmp_path / "again.safetensors", read, model, "kohya")
    jax.tree.map(np.testing.assert_array_equal, lora.read(tmp_path / "again.safetensors", model), read)
    save_file({KOHYA + "diff": random((32, 32))}, tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match="has diff: only LoRA and DoRA can be written"):
        lora.write(tmp_path / "x.safetensors", lora.read(tmp_path / "f.safetensors", model), model)


def test_another_weight_compiles_nothing(model, tmp_path):
    save_file({**PAIR, f"unet.{Q}.dora_scale": random((32, 1))}, tmp_path / "f.safetensors")
    one = lora.read(tmp_path / "f.safetensors", model)["unet"]
    merge = jax.jit(lora.merge)
    merge(model["unet"].params, [one], np.zeros(1, np.float32))
    with compilations() as again:
        merge(model["unet"].params, [one], np.ones(1, np.float32))
    assert again.count == 0
