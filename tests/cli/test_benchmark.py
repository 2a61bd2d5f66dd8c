"""`jaxdiff benchmark` on a toy: every program is measured, none compiles twice, and what cannot be is refused."""

import contextlib
import dataclasses
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdiff.benchmarks import programs, report, subject, torch_peer
from jaxdiff.benchmarks.measure import measure
from jaxdiff.cli import benchmark
from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import main
from jaxdiff.metrics import speed
from jaxdiff.models.unet import UNetConfig, cifar10
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.single_file import PRESETS

CONFIG = """
from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture

def config():
    return Experiment(
        name="tiny",
        data=DataConfig(name={folder!r}, split="all", size=4),
        task=picture.Config(
            process=picture.ProcessConfig(prediction="x0"),
            net=UNetConfig(channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(2,), depth=(1,),
                           groups=4, pooled=True),
            text=TextConfig(vocabulary=300, length=8, width=8, layers=1, heads=2),
            vocabulary=300,
        ),
    )
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    top = tmp_path_factory.mktemp("benchmark")
    (top / "pictures").mkdir()
    for i in range(8):
        Image.new("RGB", (4, 4), (30 * i, 0, 0)).save(top / "pictures" / f"{i}.png")
        (top / "pictures" / f"{i}.txt").write_text("red")
    (top / "tiny.py").write_text(CONFIG.format(folder=str(top / "pictures")))
    return str(top / "tiny.py")


@pytest.fixture(scope="module")
def found(config, tmp_path_factory):
    """The JSON of everything the toy has, and of its text encoder on one and two devices, and where they lie."""
    out = tmp_path_factory.mktemp("found") / "new" / "found.json"
    patch = pytest.MonkeyPatch()
    patch.setattr(benchmark, "_no_compilation_cache", contextlib.nullcontext)  # what it costs is of no interest here
    patch.setattr(speed, "product", functools.partial(speed.product, size=64))
    common = ["--config", config, "--batch", "4", "--rounds", "3", "--steps", "2"]
    main(["benchmark", *common, "--json", str(out)])
    both = out.with_name("both.json")
    main(
        ["benchmark", "text-encoder", *common, "--devices", "1", "2", "--json", str(both), "--profile", str(out.parent)]
    )
    patch.undo()
    return json.loads(out.read_text()), json.loads(both.read_text()), out.parent


def test_every_program_is_measured_and_compiles_once(found):
    records = {record["name"]: record for record in found[0]["records"]}
    assert list(records) == ["unet", "train-step", "loop", "text-to-image", "text-encoder", "loader", "checkpoint"]
    for record in records.values():
        if "flops" in record:
            assert record["recompiled"] == 0
            assert record["uncounted"] == []
            assert record["flops"] == record["executed"] > 0  # too few channels for Winograd's form
            assert record["of_peak"] == record["executed_of_peak"]
            assert record["run"]["lower"] <= record["run"]["median"] <= record["run"]["upper"]
            assert record["run"]["count"] == 3
            assert record["compile_s"] > 0
            assert record["xla"]["bytes"] > 0
            assert record["xla"]["memory"] > 0
    # two calls of one network; text, two networks of a doubled batch; forward, and more than that again backward
    network, text = records["unet"]["flops"], records["text-encoder"]["flops"]
    assert records["loop"]["flops"] == pytest.approx(2 * network, rel=0.05)
    assert records["text-to-image"]["flops"] == pytest.approx(2 * text + 4 * network, rel=0.05)
    assert 2.5 < records["train-step"]["flops"] / (network + text) < 3.5
    assert records["loader"]["pictures"] == 8
    assert records["checkpoint"]["bytes"] > 4 * 4 * 1000  # weights, two moments, average, float32


def test_devices_share_the_batch(found):
    one, two = found[1]["records"]
    assert (one["devices"], two["devices"], one["batch"], two["batch"]) == (1, 2, 4, 4)
    assert one["flops"] == two["flops"]
    assert two["xla"]["memory"] < one["xla"]["memory"]  # of one device
    assert "against the first" in report.tables(found[1]["records"])
    assert any(found[2].rglob("*.xplane.pb"))


def test_tables_have_a_row_for_each_record(found):
    text = report.tables(found[0]["records"])
    for name in ("unet", "train-step", "loop", "text-to-image", "text-encoder"):
        assert len(re.findall(rf"\| tiny +\| {name} ", text)) == 2  # its time, and its work
    assert "training waits" in text
    assert "images/s from disk" in text
    assert found[0]["machine"]["cpu"] in report.machine(found[0]["machine"])


def test_more_devices_than_there_are_become_virtual_ones(config, tmp_path):
    out = tmp_path / "found.json"
    program = [
        sys.executable,
        "-m",
        "jaxdiff.cli.main",
        "benchmark",
        "text-encoder",
        "--config",
        config,
        "--batch",
        "4",
    ]
    env = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PATH": "", "HOME": str(tmp_path)}
    subprocess.run([*program, "--rounds", "1", "--devices", "2", "--json", str(out)], env=env, check=True)
    (record,) = json.loads(out.read_text())["records"]
    assert record["devices"] == 2


def test_peers_take_turns_and_ratios_are_ours_over_theirs(config, monkeypatch):
    monkeypatch.setattr(speed, "product", functools.partial(speed.product, size=64))
    args = benchmark.Args(config=config)
    case = programs.CASES["text-encoder"](benchmark.read_subject(args), 2, jax.devices()[:1], 1)
    turns = []

    def peers(case):
        return {"slow": lambda i: turns.append([case(i) for _ in range(50)])}

    record = measure(case, jax.devices()[:1], 4, peers)
    assert len(turns) == 2 * 4  # in each round one to warm up
    assert record["against"]["slow"]["ratio"]["all"]["median"] < 0.5
    assert record["against"]["slow"]["ratio"]["second"]["count"] == 2
    assert "| slow " in report.tables([{"config": "tiny", **record}])


def test_nothing_is_read_from_the_cache_on_disk():
    before = jax.config.jax_enable_compilation_cache
    with benchmark._no_compilation_cache():
        assert not jax.config.jax_enable_compilation_cache
    assert jax.config.jax_enable_compilation_cache == before


MISSING = ("torch", "diffusers", "transformers")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["unets"], "tiny has no 'unets' to measure: expected some of unet, "),
        (["decoder"], "tiny has no 'decoder' to measure"),
        (["unet", "--batch", "3", "--devices", "2"], "batch is 3, which does not divide over 2 devices"),
        (["unet", "--batch", "16", "--devices", "16"], "devices is 16, and there are 8"),
        (["unet", "--rounds", "0"], "rounds is 0: expected 1 or more"),
        (["unet", "--batch", "0"], "batch is 0: expected 1 or more"),
        (["unet", "--size", "-1"], "size is -1: expected 1 or more"),
        (["unet", "--config", "openmoji_kl"], "openmoji_kl trains critic, generator and no unet"),
        (
            ["unet", "--against", "torch"],
            "needs torch, diffusers, transformers, not installed here: pip install 'jaxdiff[reference]'",
        ),
        (["train-step", "--config", "sd1"], "sd1 has no 'train-step' to measure"),
        (["unet", "--config", "sd1", "--size", "100"], "size is 100: expected a multiple of 8"),
        (["unet", "--config", "nowhere"], "no config file nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(config, capsys, monkeypatch, args, words):
    known = torch_peer.importlib.util.find_spec
    monkeypatch.setattr(torch_peer.importlib.util, "find_spec", lambda name: None if name in MISSING else known(name))
    with pytest.raises(SystemExit):
        main(["benchmark", *args, *([] if "--config" in args else ["--config", config])])
    assert words in capsys.readouterr().err


TEXT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = {
    "unet": {
        "block_out_channels": [8],
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
    },
    "vae": {
        "block_out_channels": [8],
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "norm_num_groups": 4,
        "scaling_factor": 0.2,
    },
    "text_encoder": TEXT,
}
SMALL_XL = {
    **SMALL,
    "unet": {
        **SMALL["unet"],
        "cross_attention_dim": 16,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 8 + 6 * 4,
    },
    "text_encoder_2": {**TEXT, "projection_dim": 8},
}


@pytest.mark.parametrize(("name", "json_"), [("sd1", SMALL), ("sdxl", SMALL_XL)])
def test_whole_pictures_of_a_published_model_are_its_pipelines(name, json_, monkeypatch):
    monkeypatch.setattr(speed, "product", functools.partial(speed.product, size=64))
    monkeypatch.setitem(PRESETS, name, json_)
    small, one, told = subject.published(name, 64), jax.devices()[:1], []
    case = programs.CASES["text-to-image"](small, 2, one, 2)
    record = measure(case, one, 2, tell=lambda *text: told.append("".join(text)))
    assert record["recompiled"] == 0
    assert told == ["compiling", "first calls", "measuring, round 1 of 2", "measuring, round 2 of 2"]
    made = case(1)["pixels"]
    assert (made.dtype, made.shape) == (np.uint8, (2, 8, 8, 3))  # this autoencoder halves nothing
    pipe = DiffusionPipeline(subject.bundle(small), devices=one)
    expected = pipe(["1 0", "1 1"], key=jax.random.split(jax.random.key(1), 2), steps=2, height=8, width=8)
    np.testing.assert_array_equal(made, expected)
    if name == "sd1":  # two calls for pairs, texts of both kinds, the decoder
        parts = {"unet": (4, 2), "text-encoder": (4, 1), "decoder": (2, 1)}
        whole = 0.0
        for part, (batch, times) in parts.items():
            case = programs.CASES[part](small, batch, one, 1)
            whole += times * speed.work(case.program.trace(*case.arguments(0)).jaxpr).flops
        assert record["flops"] == record["executed"] == pytest.approx(whole, rel=5e-3)  # the sampler adds its sums


def test_a_published_model_has_its_networks_in_its_shapes():
    sd = subject.published("sd1")
    assert programs.applicable(sd) == ["unet", "loop", "text-to-image", "text-encoder", "decoder"]
    x, _, told = subject.noisy(sd, 2, 0)
    assert (x.shape, told["context"].shape, list(told)) == ((2, 64, 64, 4), (2, 77, 768), ["context"])
    assert subject.tokens(sd, 2, 0).shape == (2, 77)
    assert subject.published("sdxl").pooled == 2816


def test_what_the_page_compares_with_pytorch_has_a_peer():
    for name in ("quickstart", "openmoji32"):
        theirs = subject.of_experiment(read_config(Path(name)))
        assert torch_peer.condition_json(theirs.unet, theirs.channels, theirs.width, theirs.pooled)
    assert torch_peer.has_train_step(read_config(Path("cifar10")))
    for name in ("cifar10_edm", "cifar10_improved", "openmoji_kl"):
        assert not torch_peer.has_train_step(read_config(Path(name)))


def test_a_network_with_cross_attention_is_written_as_theirs():
    net = family("UNet2DConditionModel").config(PRESETS["sd1"]["unet"])
    json_ = torch_peer.condition_json(net, 4, 768, 0)
    assert family("UNet2DConditionModel").config(json_) == net
    assert json_["attention_head_dim"] == [8, 8, 8, 8]
    ours = UNetConfig(
        channels=(8, 8), attention=("none", "cross"), heads=(1, 2), depth=(1, 1), mid_attention="cross", groups=4
    )
    with pytest.raises(torch_peer.NoPeerError, match="rescale=2"):
        torch_peer.condition_json(dataclasses.replace(ours, rescale=2.0), 3, 8, 8)
    with pytest.raises(torch_peer.NoPeerError, match="down_block_types has 'self'"):
        torch_peer.condition_json(cifar10(), 3, 8, 8)
