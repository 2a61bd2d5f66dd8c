"""What PEFT notes beside the factors: scales by every field, and what is refused; numbers against PEFT's own."""

import json

import numpy as np
import pytest
from lora_files import PEFT, PEFT_ARRAYS, Q, merged, noted, random, refused
from reference.sd_weights import noise, weight
from safetensors.numpy import save_file
from support import close

from jaxdiff.pretrained import lora
from jaxdiff.pretrained.lora import adapter_config


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
