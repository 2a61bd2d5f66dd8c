"""Every field that the reference's classes read is honoured here, known to be harmless, or refused by its name."""

import functools
import json

import numpy as np
import pytest
from reference.sd_weights import load
from support import REFERENCE

from jaxdiff.data.tokenizer_clip import END
from jaxdiff.models.autoencoder_dvae import DVAEConfig
from jaxdiff.pretrained import clip_tokenizer, index, preprocessor
from jaxdiff.pretrained.components import FAMILIES, family
from jaxdiff.pretrained.rules import dvae, flatten
from jaxdiff.pretrained.rules.fields import settle

DALLE, _ = load(REFERENCE / "dalle_mini.npz")
FIELDS = {
    **json.loads((REFERENCE / "configs.json").read_text())["fields"],
    **DALLE["fields"],
    dvae.KIND: dvae.published(DVAEConfig()),  # of no other library
}
CONFIGS = {
    "CLIPTextModel": "CLIPTextConfig",
    "CLIPTextModelWithProjection": "CLIPTextConfig",
    "CLIPVisionModelWithProjection": "CLIPVisionConfig",
    "StableDiffusionSafetyChecker": "CLIPConfig",
    "T5EncoderModel": "T5Config",
    "MultilingualCLIP": "MCLIPConfig",
    "LDMBertModel": "LDMBertConfig",
}
_CROSS = {
    "block_out_channels": [8, 8],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
}
_VAE = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}
_TEXT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_TEXT, "image_size": 16, "patch_size": 8}
TINY = {
    "UNet2DConditionModel": {**_CROSS, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]},
    "UNet2DModel": {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "AutoencoderKL": _VAE,
    "VQModel": _VAE,
    "AutoencoderTiny": {},
    "ControlNetModel": {**_CROSS, "conditioning_embedding_out_channels": [4, 4]},
    "T2IAdapter": {"channels": [8, 8], "num_res_blocks": 1, "downscale_factor": 2},
    "CLIPTextModel": _TEXT,
    "CLIPTextModelWithProjection": _TEXT,
    "CLIPVisionModelWithProjection": _VISION,
    "StableDiffusionSafetyChecker": {"vision_config": _VISION},
    "T5EncoderModel": {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 2, "num_heads": 2},
    "PriorTransformer": {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1, "embedding_dim": 8},
    "MultilingualCLIP": {**_TEXT, "vocab_size": 16, "transformerDimensions": 8, "numDims": 8},
    "LDMBertModel": {"d_model": 8, "head_dim": 4, "encoder_ffn_dim": 8, "encoder_layers": 1, "vocab_size": 16},
    "StableUnCLIPImageNormalizer": {},
    "DalleBart": DALLE["config"],
    "VQGAN": DALLE["vqgan"],
    dvae.KIND: {"block_out_channels": [8, 8], "layers_per_block": 1, "num_codes": 4, "embed_dim": 4},
    "UnCLIPTextProjModel": {"clip_embeddings_dim": 8, "time_embed_dim": 8, "cross_attention_dim": 4},
}
ELSEWHERE = {
    "normalize_text": "the pipeline's captions",
    "use_scan": "the layout of the file",
    "sample_size": "the pipeline's default size",
    "addition_time_embed_dim": "the pipeline's waves of SDXL's sizes",
    "projection_class_embeddings_input_dim": "the width of what is told, where something is",
}
"""Fields that are read where config, shapes and names of weights do not show it."""


def shapes_and_names(kind, net, config):
    """What follows from a config beside ours: the shapes of the weights, and their names."""
    return {path: x.shape for path, x in flatten(family(kind).shapes(net, config)).items()}, family(kind).rules(
        net, config
    )


@functools.cache
def usual(kind):
    net = family(kind).config(TINY[kind])
    return net, *shapes_and_names(kind, net, TINY[kind])


def others(value):
    """Values that a field may have instead."""
    if isinstance(value, bool):
        return [not value, "yes"]
    if isinstance(value, int | float):
        return [value + 1, "4"]
    if isinstance(value, str):
        return ["other", 1]
    if isinstance(value, dict):
        return [{**value, "num_hidden_layers": 3}, "x"]
    if isinstance(value, list):
        return [[one * 2 for one in value], 5]
    return [True, 5, "other", [5, 5]]


CASES = [
    (kind, field, value)
    for kind in FAMILIES
    for field, value in FIELDS[CONFIGS.get(kind, kind)].items()
    if not field.startswith("_") and field not in ("model_type", "transformers_version", "architectures", "dtype")
]


@pytest.mark.parametrize(("kind", "field", "value"), CASES)
def test_each_field_changes_what_is_made_or_is_refused(kind, field, value):
    if field in family(kind).harmless:
        assert len(family(kind).harmless[field]) > 8
        return
    for other in others(TINY[kind].get(field, value)):
        config = {**TINY[kind], field: other}
        try:
            net, said = family(kind).config(config), ""
        except ValueError as error:
            net, said = None, str(error)
        if net is None:
            assert field in said
            assert len(said) < 600
        elif field not in ELSEWHERE and net == usual(kind)[0]:
            assert shapes_and_names(kind, net, config) != usual(kind)[1:], f"{kind}: {field}={other!r} changes nothing"


DEFAULTLESS = ("UnCLIPTextProjModel", "MultilingualCLIP")
"""The first has no defaults; the second's do not fit each other."""


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in DEFAULTLESS])
def test_absence_means_the_references_default(kind):
    theirs = FIELDS[CONFIGS.get(kind, kind)]
    assert family(kind).config(theirs) == family(kind).config({})


PIPELINES = [name for name in FIELDS if name.endswith("Pipeline")]


@pytest.mark.parametrize("name", PIPELINES)
def test_each_setting_of_a_pipeline_is_read_harmless_or_refused(name):
    assert name in index.PIPELINES
    for field, value in FIELDS[name].items():
        if field in index.HARMLESS:
            assert len(index.HARMLESS[field]) > 8
            continue
        assert field in index._SETTINGS
        settle(name, {field: value}, index._SETTINGS, index.HARMLESS)
        with pytest.raises(ValueError, match=field):
            settle(name, {field: "other"}, index._SETTINGS, index.HARMLESS)
    with pytest.raises(ValueError, match="is_cosxl_edit=True"):
        settle(name, {"is_cosxl_edit": True}, index._SETTINGS, index.HARMLESS)


@pytest.mark.parametrize("field", FIELDS["CLIPImageProcessor"])
def test_each_step_of_the_preparation_of_pictures_is_ours_or_refused(field, tmp_path):
    file, usual = tmp_path / "preprocessor_config.json", FIELDS["CLIPImageProcessor"]
    file.write_text(json.dumps(usual))
    preprocessor.check(tmp_path, 224)
    if field in preprocessor.HARMLESS:
        return
    for other in others(usual[field]) if not isinstance(usual[field], dict) else [{"shortest_edge": 200}, 200, "x"]:
        file.write_text(json.dumps({**usual, field: other}))
        with pytest.raises(ValueError, match=field):
            preprocessor.check(tmp_path, 224)


def test_older_files_say_the_same_preparation(tmp_path):
    old = {"crop_size": 224, "size": 224, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    preprocessor.check(tmp_path, 224)
    with pytest.raises(ValueError, match="size=224: the image encoder takes 336x336"):
        preprocessor.check(tmp_path, 336)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, None),
        ({"pad_token": "!", "model_max_length": 77, "do_lower_case": False, "add_prefix_space": True}, None),
        ({"unk_token": {"content": END, "lstrip": False}, "added_tokens_decoder": {"2016": {"content": END}}}, None),
        ({"tokenizer_class": "T5Tokenizer"}, "tokenizer_class='T5Tokenizer'"),
        ({"eos_token": "</s>"}, "eos_token='</s>'"),
        ({"padding_side": "left"}, "padding_side='left'"),
        ({"model_max_length": "many"}, "model_max_length='many'"),
        ({"added_tokens_decoder": {"9999": {"content": "<new>"}}}, "'<new>' as 9999"),
        ({"a_new_field": 3}, "a_new_field=3 is a field unknown here"),
        ({"pad_token": 3}, "pad_token is 3"),
        ({"model_max_length": 10**400}, "model_max_length=1000"),
    ],
)
def test_what_a_tokenizer_says(words_folder, said, words):
    (words_folder / "tokenizer_config.json").write_text(json.dumps(said))
    if words is None:
        assert clip_tokenizer.read(words_folder).encode("a cat").shape == (77,)
    else:
        with pytest.raises(ValueError, match="tokenizer_config") as error:
            clip_tokenizer.read(words_folder)
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("merges.txt", "#version: 0.2\n", "has a vocabulary but no merges"),
        ("merges.txt", "a b c\n", "a merge joins two tokens"),
        ("vocab.json", "[]", "holds a list, expected an object"),
        ("vocab.json", "{}", "has no vocabulary"),
        ("vocab.json", '{"a": -1}', "token 'a' has the id -1"),
        ("vocab.json", '{"a": "1"}', "token 'a' has the id 1"),
        ("vocab.json", "{", "is not JSON"),
        ("added_tokens.json", '{"a": 1.5}', "token 'a' has the id 1.5"),
    ],
)
def test_a_damaged_vocabulary_is_refused(words_folder, file, text, words):
    (words_folder / file).write_text(text)
    with pytest.raises(ValueError, match=words):
        clip_tokenizer.read(words_folder)


@pytest.fixture
def words_folder(tmp_path):

    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    (tmp_path / "vocab.json").write_bytes(bytes(saved["vocab"]))
    (tmp_path / "merges.txt").write_bytes(bytes(saved["merges"]))
    return tmp_path
