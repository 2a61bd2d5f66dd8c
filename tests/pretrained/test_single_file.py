"""Single-file checkpoints: what diffusers' converters make of the same tensors gives the same outputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights
from safetensors.numpy import load_file, save_file
from support import REFERENCE, close, same_tensors

from jaxdiff.data.tokenizer_clip import END
from jaxdiff.models.autoencoder_kl import AutoencoderKL
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNet, with_sizes
from jaxdiff.pretrained import single_file
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.rules import TensorError, flatten
from jaxdiff.typing import Cond

INDEX, ARRAYS = load(REFERENCE / "sd_single_file.npz")
TOKENS = jnp.array([[1, 5, 7, 98, 99, 99, 0, 0], [1, 5, 80, 81, 12, 98, 3, 99]])
TENSORS = {name: weights(entry["shapes"]) for name, entry in INDEX.items()}
LEFTOVERS = {"betas": np.zeros(3, np.float32), "model_ema.decay": np.zeros((), np.float32)}


def picture(name, shape):
    return jnp.asarray(noise(name, shape).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", INDEX)
def test_outputs_agree_and_the_file_is_written_back(name, tmp_path):
    save_file({**TENSORS[name], **LEFTOVERS}, tmp_path / "model.safetensors")
    options = {"prediction": "v_prediction"} if name == "sd2" else {}
    bundle = single_file.read(tmp_path / "model.safetensors", configs=INDEX[name]["configs"], **options)
    assert bundle.process().kind == ("v" if name == "sd2" else "eps")
    parts = bundle.components

    def run(module, part, *args, **kwargs):
        return jax.jit(lambda params: module(parts[part].config).apply({"params": params}, *args, **kwargs))(
            parts[part].params
        )

    cond = Cond(context=jnp.asarray(noise("context", (2, 5, 24))))
    if name == "sdxl":
        pooled = with_sizes(jnp.asarray(noise("pooled", (2, 20))), jnp.full((2, 6), 8.0), 8)
        cond = Cond(context=cond.context, pooled=pooled)
    y = run(UNet, "unet", picture("x", (2, 4, 8, 8)), jnp.array([17.0, 801.0]), cond)
    close(np.asarray(y).transpose(0, 3, 1, 2), ARRAYS[f"{name}/unet"])
    y = run(AutoencoderKL, "vae", picture("picture", (1, 3, 16, 16)))
    close(np.asarray(y).transpose(0, 3, 1, 2), ARRAYS[f"{name}/vae"])
    close(run(ClipText, "text_encoder", TOKENS)[0], ARRAYS[f"{name}/text_encoder"])
    if name == "sdxl":
        close(run(ClipText, "text_encoder_2", TOKENS)[1], ARRAYS["sdxl/text_encoder_2"])
    with pytest.warns(UserWarning, match="one file does not say unet.channels"):
        single_file.write(bundle, tmp_path / "again.safetensors")
    told = {"v_pred": np.zeros(0, np.float32)} if name == "sd2" else {}
    same_tensors(load_file(tmp_path / "again.safetensors"), {**TENSORS[name], **told})


@pytest.mark.parametrize(
    ("name", "count"),  # of the U-Nets, as diffusers builds them
    [("sd2", 865_910_724), ("sdxl_refiner", 2_259_526_660)],
)
def test_presets_have_the_published_sizes(name, count):
    json = single_file.PRESETS[name]["unet"]
    one = family("UNet2DConditionModel")
    leaves = flatten(one.shapes(one.config(json), json)).values()
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == count


def test_what_does_not_fit(tmp_path):
    configs = INDEX["sd2"]["configs"]
    save_file(TENSORS["sd2"], tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="pass prediction='v_prediction' for the 768 model"):
        single_file.read(tmp_path / "model.safetensors", configs=configs)
    wrong = {**TENSORS["sd2"], "something.else": np.zeros(2, np.float32)}
    del wrong["first_stage_model.quant_conv.bias"]
    save_file(wrong, tmp_path / "model.safetensors")
    with pytest.raises(TensorError) as error:
        single_file.read(tmp_path / "model.safetensors", configs=configs, prediction="epsilon")
    assert "missing: first_stage_model.quant_conv.bias (8,)" in str(error.value)
    assert "of no part: something.else" in str(error.value)
    save_file({"lora.up": np.zeros(2, np.float32)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="no single-file checkpoint of Stable Diffusion: none of its 1 tensors"):
        single_file.read(tmp_path / "lora.safetensors")


def test_spare_layers_of_openclip_are_left_out(tmp_path):
    spare = {
        name.replace("resblocks.2.", "resblocks.3."): x for name, x in TENSORS["sd2"].items() if ".resblocks.2." in name
    }
    projection = {"cond_stage_model.model.text_projection": np.zeros((32, 32), np.float32)}
    save_file({**TENSORS["sd2"], **spare, **projection}, tmp_path / "model.safetensors")
    bundle = single_file.read(tmp_path / "model.safetensors", configs=INDEX["sd2"]["configs"], prediction="epsilon")
    assert "block_3" not in bundle.components["text_encoder"].params


@pytest.mark.parametrize(("name", "pads"), [("sd1", [END]), ("sd2", ["!"]), ("sdxl", [END, "!"])])
def test_each_text_encoder_is_padded_as_it_was_trained(name, pads, tmp_path):
    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    (tmp_path / "vocab.json").write_bytes(bytes(saved["vocab"]))
    (tmp_path / "merges.txt").write_bytes(bytes(saved["merges"]))
    save_file(TENSORS[name], tmp_path / "model.safetensors")
    bundle = single_file.read(
        tmp_path / "model.safetensors", tokenizer=tmp_path, configs=INDEX[name]["configs"], prediction="epsilon"
    )
    assert [bundle.tokenizers[one].pad for one in sorted(bundle.tokenizers)] == pads


@pytest.mark.parametrize(("prediction", "side"), [("epsilon", 64), ("v_prediction", 96)])
def test_stable_diffusion_2_has_the_size_that_it_was_trained_on(prediction, side, tmp_path):
    configs = {**INDEX["sd2"]["configs"]}
    configs["unet"] = {**configs["unet"], "sample_size": single_file.PRESETS["sd2"]["unet"]["sample_size"]}
    save_file(TENSORS["sd2"], tmp_path / "model.safetensors")
    bundle = single_file.read(tmp_path / "model.safetensors", configs=configs, prediction=prediction)
    assert bundle.components["unet"].json["sample_size"] == side


LEFT = [
    "conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids",
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
    "conditioner.embedders.0.transformer.text_projection.weight",
    "conditioner.embedders.0.logit_scale",
    "conditioner.embedders.1.model.logit_scale",
    "logit_scale",
    "denoiser.sigmas",
    "model_ema.num_updates",
    "model_ema.diffusion_modelout0weight",
    "first_stage_model.loss.logvar",
    "first_stage_model.model_ema.decay",
    "alphas_cumprod",
    "sqrt_alphas_cumprod",
    "v_pred",
    "ztsnr",
]


def test_what_other_tools_leave_is_passed_over(tmp_path):
    save_file({**TENSORS["sdxl"], **dict.fromkeys(LEFT, np.zeros(2, np.float32))}, tmp_path / "model.safetensors")
    bundle = single_file.read(tmp_path / "model.safetensors", configs=INDEX["sdxl"]["configs"])
    assert bundle.process().kind == "v"
    save_file({**TENSORS["sdxl"], "conditioner.embedders.1.model.odd": np.zeros(2)}, tmp_path / "odd.safetensors")
    with pytest.raises(TensorError, match=r"unexpected: conditioner\.embedders\.1\.model\.odd"):
        single_file.read(tmp_path / "odd.safetensors", configs=INDEX["sdxl"]["configs"])


@pytest.mark.parametrize("name", INDEX)
def test_averaged_weights_are_the_model_where_there_are_no_others(name, tmp_path):
    start, own = "model.diffusion_model.", INDEX[name]["configs"]
    averaged = {
        f"model_ema.diffusion_model{k.removeprefix(start).replace('.', '')}" if k.startswith(start) else k: x
        for k, x in TENSORS[name].items()
    }
    more = {"model_ema.decay": np.zeros(1, np.float32), "model_ema.num_updates": np.zeros(1, np.float32)}
    save_file({**averaged, **more}, tmp_path / "averaged.safetensors")
    save_file(TENSORS[name], tmp_path / "plain.safetensors")
    with pytest.warns(UserWarning, match=r"only averaged weights of its U-Net \(model_ema\)"):
        found = single_file.read(tmp_path / "averaged.safetensors", configs=own, prediction="epsilon")
    plain = single_file.read(tmp_path / "plain.safetensors", configs=own, prediction="epsilon")
    assert found.index == plain.index
    jax.tree.map(np.testing.assert_array_equal, found.components["unet"].params, plain.components["unet"].params)
    save_file({**averaged, "model_ema.diffusion_modelodd": np.zeros(1)}, tmp_path / "odd.safetensors")
    with (
        pytest.warns(UserWarning, match="averaged"),
        pytest.raises(TensorError, match=r"unexpected: model_ema\.diffusion_modelodd"),
    ):
        single_file.read(tmp_path / "odd.safetensors", configs=own, prediction="epsilon")


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_both_layouts_of_one_text_encoder_are_the_same_model(name, tmp_path):
    new = {k.replace("cond_stage_model.", "conditioner.embedders.0."): x for k, x in TENSORS[name].items()}
    read = []
    for tensors in (TENSORS[name], new):
        save_file(tensors, tmp_path / "model.safetensors")
        options = {"configs": INDEX[name]["configs"], "prediction": "epsilon"}
        read.append(single_file.read(tmp_path / "model.safetensors", **options))
    assert read[0].index == read[1].index
    for part, component in read[0].components.items():
        jax.tree.map(np.testing.assert_array_equal, component.params, read[1].components[part].params)


def test_a_part_that_is_not_wanted_need_not_be_there(tmp_path):
    bare = {k: x for k, x in TENSORS["sd1"].items() if not k.startswith("first_stage_model.")}
    save_file(bare, tmp_path / "model.safetensors")
    configs = INDEX["sd1"]["configs"]
    bundle = single_file.read(tmp_path / "model.safetensors", configs=configs, without=["vae"])
    assert set(bundle.components) == {"unet", "text_encoder"}
    with pytest.raises(TensorError, match=r"it has no vae .* pass vae, the directory or file of one"):
        single_file.read(tmp_path / "model.safetensors", configs=configs)


def test_an_edm_model_brings_the_scale_of_its_latents(tmp_path, monkeypatch):
    monkeypatch.setitem(single_file.PRESETS, "sdxl", INDEX["sdxl"]["configs"])
    moments = {"edm_mean": np.float32([[[[1]], [[2]], [[3]], [[4]]]]), "edm_std": np.full((1, 4, 1, 1), 2, np.float32)}
    save_file({**TENSORS["sdxl"], **moments}, tmp_path / "model.safetensors")
    json = single_file.configs_of(tmp_path / "model.safetensors")["vae"]
    net = family("AutoencoderKL").config(json)
    assert (net.scale, net.shift) == ((0.25,) * 4, (1.0, 2.0, 3.0, 4.0))


def test_another_kind_of_autoencoder_has_no_single_file(tmp_path):
    save_file(TENSORS["sd1"], tmp_path / "model.safetensors")
    bundle = single_file.read(tmp_path / "model.safetensors", configs=INDEX["sd1"]["configs"])
    vae = dataclasses.replace(bundle.components["vae"], kind="AutoencoderTiny")
    bundle = dataclasses.replace(bundle, components={**bundle.components, "vae": vae})
    with pytest.raises(ValueError, match="no room for a AutoencoderTiny as vae: write a directory"):
        single_file.write(bundle, tmp_path / "again.safetensors")
