"""Model directories: read, refused, written back."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from reference.sd_weights import load, weights
from safetensors.numpy import load_file, save_file
from support import REFERENCE, same_tensors

from jaxdiff.pretrained import files
from jaxdiff.pretrained.read import read_component, read_directory
from jaxdiff.pretrained.rules import TensorError, flatten
from jaxdiff.pretrained.write import write_component, write_directory

PARTS = {"unet": ("sd_unet", "sd1"), "vae": ("sd_autoencoder", "sd"), "text_encoder": ("sd_clip", "large")}
ENTRIES = {name: load(REFERENCE / f"{file}.npz")[0][case] for name, (file, case) in PARTS.items()}
TENSORS = {name: weights(entry["shapes"]) for name, entry in ENTRIES.items()}
FILES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", "requires_safety_checker": False}
    index["safety_checker"] = [None, None]
    for name, entry in ENTRIES.items():
        index[name] = ["diffusers", entry["class"]]
        (path / name).mkdir(parents=True)
        (path / name / "config.json").write_text(json.dumps(entry["config"]))
        save_file(TENSORS[name], path / name / f"{FILES[name]}.safetensors")
    index |= {"scheduler": ["diffusers", "DDIMScheduler"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    (path / "tokenizer").mkdir()
    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    (path / "tokenizer" / "vocab.json").write_bytes(bytes(saved["vocab"]))
    (path / "tokenizer" / "merges.txt").write_bytes(bytes(saved["merges"]))
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def test_a_directory_is_read_and_written_back(folder, tmp_path):
    bundle = read_directory(folder)
    assert bundle.kind == "StableDiffusionPipeline"
    assert set(bundle.components) == set(PARTS)
    assert bundle.tokenizers["tokenizer"].encode("a cat").shape == (77,)
    assert bundle.process().sampler == "ddim"
    write_directory(bundle, tmp_path / "copy", source=folder)
    for name in ("unet", "vae"):
        written = load_file(tmp_path / "copy" / name / "diffusion_pytorch_model.safetensors")
        same_tensors(written, TENSORS[name])
    again = read_directory(tmp_path / "copy")
    assert again.index == bundle.index
    for name, component in bundle.components.items():
        assert again.components[name].config == component.config
        jax.tree.map(np.testing.assert_array_equal, again.components[name].params, component.params)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler"])
def test_an_old_directory_samples_as_the_references_pipeline_does(folder, name):
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": name, **betas}))
    process = read_directory(folder, without=PARTS).process()
    # where StableDiffusionPipeline of diffusers calls the network, and it does not clip
    calls = set(np.round(process.times(10)[:-1] * 1000 - 1).astype(int).tolist())
    assert {*range(1, 1000, 100)} <= calls
    assert 0 not in calls
    assert process.clip is None


def test_shards_are_one_model(folder, tmp_path):
    unet = read_component(folder / "unet", kind="UNet2DConditionModel")
    write_component(unet, tmp_path / "sharded", shard=200_000)
    pieces = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(pieces) > 3
    assert all(piece.stat().st_size < 400_000 for piece in pieces)
    again = read_component(tmp_path / "sharded", kind="UNet2DConditionModel")
    jax.tree.map(np.testing.assert_array_equal, again.params, unet.params)
    merged = {name: x for piece in pieces for name, x in load_file(piece).items()}
    same_tensors(merged, TENSORS["unet"])
    pieces[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"names the shard {pieces[1].name}"):
        read_component(tmp_path / "sharded", kind="UNet2DConditionModel")


def test_variants_and_dtypes(folder):
    half = {name: x.astype(np.float16) for name, x in TENSORS["vae"].items()}
    save_file(half, folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    kinds = {"kind": "AutoencoderKL"}
    plain = flatten(read_component(folder / "vae", **kinds).params)
    fp16 = flatten(read_component(folder / "vae", variant="fp16", **kinds).params)
    brain = flatten(read_component(folder / "vae", dtype=jnp.bfloat16, **kinds).params)
    assert {x.dtype for x in plain.values()} == {jnp.dtype("float32")}
    assert {x.dtype for x in fp16.values()} == {jnp.dtype("float16")}
    assert {x.dtype for x in brain.values()} == {jnp.dtype("bfloat16")}
    name = "decoder/conv_in/kernel"
    np.testing.assert_array_equal(fp16[name], np.asarray(plain[name]).astype(np.float16))
    np.testing.assert_array_equal(brain[name], np.asarray(plain[name]).astype(ml_dtypes.bfloat16))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert flatten(read_component(folder / "vae", **kinds).params)[name].dtype == jnp.float16


def test_parameters_go_to_their_shardings(folder):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

    def shardings(name, shapes):
        split = lambda x: P("fsdp") if x.shape[0] % 8 == 0 else P()
        return jax.tree.map(lambda x: NamedSharding(mesh, split(x)), shapes)

    params = flatten(read_directory(folder, shardings=shardings).components["text_encoder"].params)
    kernel = params["block_0/fc1/kernel"]
    assert kernel.sharding.spec == P("fsdp")
    assert kernel.addressable_shards[0].data.shape == (4, 64)
    np.testing.assert_array_equal(kernel.T, TENSORS["text_encoder"]["encoder.layers.0.mlp.fc1.weight"])


def test_components_can_be_left_out(folder, tmp_path):
    bundle = read_directory(folder, without=["vae"])
    assert set(bundle.components) == {"unet", "text_encoder"}
    write_directory(bundle, tmp_path / "copy", source=folder)
    assert json.loads((tmp_path / "copy" / "model_index.json").read_text())["vae"] == [None, None]


def test_what_is_no_model(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model directory at"):
        read_directory(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"model_index.json is missing \(it is one component"):
        read_directory(folder / "unet")
    shutil.rmtree(folder / "vae")
    with pytest.raises(FileNotFoundError, match=r"names vae \(AutoencoderKL\), but that folder is missing"):
        read_directory(folder)


def test_a_class_that_is_not_supported(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["diffusers", "UNet3DConditionModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="UNet3DConditionModel is not supported: those that work are UNet2DCondition"):
        read_directory(folder)


def test_missing_weights(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights in .*vae: expected diffusion_pytorch_model"):
        read_directory(folder)


@pytest.mark.parametrize("keep", [4, 100, -1000])
def test_truncated_files(folder, keep):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(files.FileError, match="truncated"):
        read_directory(folder)


def test_all_wrong_tensors_are_listed(folder):
    wrong = dict(TENSORS["vae"])
    wrong["more.weight"] = np.zeros(3, np.float32)
    wrong["encoder.conv_in.weight"] = np.zeros((1, 2), np.float32)
    del wrong["decoder.conv_out.bias"]
    save_file(wrong, folder / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(TensorError) as error:
        read_directory(folder)
    text = str(error.value)
    assert "(AutoencoderKL): 3 tensors do not fit" in text
    assert "unexpected: more.weight (3,)" in text
    assert "wrong shape: encoder.conv_in.weight is (1, 2), expected (16, 3, 3, 3)" in text
    assert "missing: decoder.conv_out.bias (3,)" in text
