"""model_index.json: classes, components and settings that are not supported are refused by name."""

import json

import pytest

from jaxdiff.pretrained import index

UNET = ["diffusers", "UNet2DConditionModel"]
GOOD = {"_class_name": "StableDiffusionPipeline", "unet": UNET, "scheduler": ["diffusers", "DDIMScheduler"]}


def read(folder, value):
    for name in ("unet", "scheduler", "vae", "tokenizer", "text_encoder"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(value))
    return index.read(folder, ())


@pytest.mark.parametrize("name", index.PIPELINES)
def test_each_class_that_is_listed_is_read(tmp_path, name):
    assert read(tmp_path, {**GOOD, "_class_name": name, "vae": [None, None]})["_class_name"] == name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "FooPipeline"}, "_class_name='FooPipeline' is not supported: those that work are"),
        ({"_class_name": "StableDiffusionXLPAGPipeline"}, "those that work are StableDiffusionXL"),
        (
            {"_class_name": ["StableDiffusionPipeline", "x"]},
            "_class_name=['StableDiffusionPipeline', 'x'] is not supported, only a word",
        ),
        ({"_class_name": 3}, "_class_name=3 is not supported, only a word"),
        ({"unet": "UNet2DConditionModel"}, "'unet' is 'UNet2DConditionModel': expected [library, class]"),
        ({"unet": ["diffusers"]}, "'unet' is ['diffusers']: expected [library, class]"),
        ({"unet": [1, 2]}, "'unet' is [1, 2]: expected [library, class]"),
        ({"unet": ["diffusers", "UNet3DConditionModel"]}, "UNet3DConditionModel is not supported"),
        ({"unet": ["diffusers", "AutoencoderKL"]}, "unet is a AutoencoderKL"),
        ({"tokenizer": ["transformers", "T5Tokenizer"]}, "tokenizer is a T5Tokenizer"),
        (
            {"tokenizer": ["transformers", "CLIPTokenizer"], "text_encoder": ["transformers", "T5EncoderModel"]},
            "tokenizer is a CLIPTokenizer",
        ),
        ({"scheduler": [None, None]}, "names no scheduler"),
        ({"is_cosxl_edit": True}, "is_cosxl_edit=True"),
        ({"max_noise_level": "350"}, "max_noise_level='350'"),
        ({"controlnet_2": ["diffusers", "ControlNetModel"]}, "names controlnet_2 (ControlNetModel), but that folder"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, change, words):
    with pytest.raises((ValueError, OSError)) as error:
        read(tmp_path, {**GOOD, **change})
    assert words in str(error.value)
    assert len(str(error.value)) < 600


def test_an_aesthetic_score_has_to_fit_the_unet():
    index.check("StableDiffusionXLImg2ImgPipeline", {"requires_aesthetics_score": True}, 5)
    index.check("StableDiffusionXLPipeline", {}, 6)
    with pytest.raises(ValueError, match="requires_aesthetics_score=True, but its unet takes 6 numbers"):
        index.check("StableDiffusionXLImg2ImgPipeline", {"requires_aesthetics_score": True}, 6)
