"""`jaxdiff convert` between all pairs of formats, with small models."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from PIL import Image
from pipelines import directory, small
from reference.sd_weights import noise, weights
from safetensors.numpy import load_file, save_file

import jaxdiff
from jaxdiff import diffusion, experiment
from jaxdiff.cli.main import main
from jaxdiff.models.unet import UNet
from jaxdiff.pretrained import single_file, textual_inversion
from jaxdiff.pretrained.read import read_directory
from jaxdiff.pretrained.rules import flatten

WHERE = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONFIG = """
from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig

def config():
    return Experiment(
        name="tiny",
        data=DataConfig(name="pictures", split="all", size=8),
        task=picture.Config(
            process=picture.ProcessConfig(schedule="cosine", prediction="v"),
            condition="none",
            net=UNetConfig(channels=(8, 8), layers=1, attention=("none", "self"), mid_attention="self", heads=(1, 1),
                           depth=(1, 1), groups=4),
            preview=PreviewConfig(prompts=("",), steps=2, guidance=1.0),
        ),
        optimizer=OptimizerConfig(lr=1e-2),
        train=TrainConfig(steps=2, batch_size=8, log_every=1),
        checkpoint=CheckpointConfig(every=2),
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    top = tmp_path_factory.mktemp("convert")
    directory.save(top / "sd")
    directory.save(top / "other")
    save_file(weights({f"{WHERE}.lora_A.weight": (2, 8), f"{WHERE}.lora_B.weight": (8, 2)}), top / "lora.safetensors")
    textual_inversion.write(top / "word.safetensors", "<thing>", noise("word", (2, 8)))
    (top / "pictures").mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(top / "pictures" / f"{i}.png")
        (top / "pictures" / f"{i}.txt").write_text("red")
    (top / "tiny.py").write_text(CONFIG)
    return top


@pytest.fixture(autouse=True)
def beside(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)


def convert(model, out, *args):
    main(["convert", "--model", str(model), "--out", str(out), *args])


def same(a, b):
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    for path, x in a.items():
        np.testing.assert_array_equal(x, b[path])


@pytest.fixture
def presets(monkeypatch):
    """Single files of the tiny model are of the size that the reader expects."""
    tiny = {name: small.part(entry).json for name, entry in small.TINY.items()}
    tiny["text_encoder"] = {**tiny["text_encoder"], "hidden_act": "quick_gelu"}
    monkeypatch.setitem(single_file.PRESETS, "sd1", tiny)


def test_a_directory_becomes_one_file_and_a_directory_again(presets, tmp_path, capsys):
    convert("sd", tmp_path / "one.safetensors")
    assert any(name.startswith("model.diffusion_model.") for name in load_file(tmp_path / "one.safetensors"))
    convert(tmp_path / "one.safetensors", tmp_path / "new" / "dir", "--tokenizer", "sd/tokenizer")
    before, after = read_directory("sd"), read_directory(tmp_path / "new" / "dir")
    for name, part in before.components.items():
        same(part.params, after.components[name].params)
    text = "a red heart, 7 birds!"
    np.testing.assert_array_equal(*(one.tokenizers["tokenizer"].encode(text) for one in (before, after)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "one.safetensors"]
    convert("sd", tmp_path / "one.safetensors", "--dtype", "float16")
    assert f"{tmp_path / 'one.safetensors'} is overwritten" in capsys.readouterr().out
    assert {str(x.dtype) for x in load_file(tmp_path / "one.safetensors").values()} == {"float16"}
    with pytest.raises(SystemExit):
        convert(tmp_path / "one.safetensors", tmp_path / "one.safetensors")
    assert "is the model itself" in capsys.readouterr().err


def test_dtype_loras_words_and_another_autoencoder(tmp_path, capsys):
    args = ["--lora", "lora.safetensors:0.5", "--textual-inversion", "word.safetensors", "--vae", "other/vae"]
    convert("sd", tmp_path / "new", "--dtype", "float16", *args)
    assert "unet: UNet2DConditionModel" in capsys.readouterr().out
    before, after = read_directory("sd"), read_directory(tmp_path / "new")
    assert {x.dtype for part in after.components.values() for x in jax.tree.leaves(part.params)} == {
        jnp.dtype("float16")
    }
    assert after.index["vae"] == ["diffusers", "AutoencoderKL"]
    assert len(after.tokenizers["tokenizer"].tokens("<thing>")) == 2
    table = after.components["text_encoder"].params["token_embed"]["embedding"]
    np.testing.assert_allclose(table[-2:], noise("word", (2, 8)), rtol=1e-3)
    lora = load_file("lora.safetensors")
    change = 0.5 * lora[f"{WHERE}.lora_B.weight"] @ lora[f"{WHERE}.lora_A.weight"]
    old, new = (flatten(one.components["unet"].params) for one in (before, after))
    moved = [path for path, x in old.items() if np.abs(x - new[path]).max() > 4e-3]
    assert moved == ["mid/attn_0/block_0/attn2/k/kernel"]
    np.testing.assert_allclose(new[moved[0]] - old[moved[0]], change.T, atol=2e-3)


def test_a_run_becomes_a_pipeline_of_diffusers(tmp_path):
    runs.write("tiny.py", tmp_path / "run")
    convert(tmp_path / "run", tmp_path / "ddpm")
    index = json.loads((tmp_path / "ddpm" / "model_index.json").read_text())
    assert index["_class_name"] == "DDPMPipeline"
    bundle, run = read_directory(tmp_path / "ddpm"), experiment.open_run(tmp_path / "run")
    params = run.weights.params
    same(bundle.components["unet"].params, params["unet"])
    process = bundle.process()
    assert process.kind == "v"
    np.testing.assert_array_equal(process.schedule.knots, diffusion.schedule.cosine().knots)
    x, t = jax.random.normal(jax.random.key(0), (1, 8, 8, 3)), jnp.array([17.0])
    ours, theirs = (
        UNet(net).apply({"params": params["unet"]}, x, t)
        for net in (run.config.task.net, bundle.components["unet"].config)
    )
    np.testing.assert_array_equal(ours, theirs)
    pipe = jaxdiff.load(tmp_path / "ddpm", devices=jax.devices()[:1])
    assert pipe("", key=jax.random.key(0), steps=2).shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing", "new"], "no model directory at nothing"),
        (["sd", "other"], "other exists: nothing is overwritten"),
        (["sd", "lora.safetensors"], "lora.safetensors exists: nothing is overwritten that was not written here"),
        (["sd", "tiny.py"], "tiny.py exists: nothing is overwritten"),
        (["sd", "tiny.py/new"], "tiny.py is a file, and no directory can be made in it"),
        (["sd", "new.gguf"], "expected a directory, or a file that ends in .safetensors"),
        (["sd", "new", "--lora", "lora.safetensors:nan"], "expected a finite number"),
        (["sd", "new.ckpt"], "expected a directory, or a file that ends in .safetensors"),
        (["lora.safetensors", "new"], "pass --tokenizer"),
        (["sd", "new.safetensors", "--textual-inversion", "word.safetensors"], "no room for new words"),
        (["sd", "new", "--lora", "word.safetensors"], "word.safetensors"),
        (["sd/unet", "new"], "not a model but one part of one"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(place, capsys, args, words):
    before = sorted(place.iterdir())
    with pytest.raises(SystemExit) as error:
        convert(*args)
    assert error.value.code == 1
    assert words in capsys.readouterr().err
    assert sorted(place.iterdir()) == before


def test_a_folder_that_may_not_be_written_is_told_before_anything_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SystemExit):
        convert("nothing", tmp_path / "new")
    assert f"nothing may be written in {tmp_path}" in capsys.readouterr().err


def test_a_run_that_reads_text_stays_here(place, tmp_path, capsys):
    config = CONFIG.replace('condition="none"', 'condition="text"').replace("groups=4", "groups=4, pooled=True")
    config = config.replace(
        "groups=4, pooled=True),", "groups=4, pooled=True),\n            text=TextConfig(width=8, heads=2),"
    )
    (tmp_path / "told.py").write_text("from jaxdiff.models.text import TextConfig\n" + config)
    runs.write(tmp_path / "told.py", tmp_path / "run")
    for args, words in (((), "cannot have pooled=True"), (("--variant", "fp16"), "takes no --variant")):
        with pytest.raises(SystemExit):
            convert(tmp_path / "run", tmp_path / "new", *args)
        assert words in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxdiff.pretrained.files.write_sharded", full)
    with pytest.raises(SystemExit):
        convert("sd", tmp_path / "new")
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
