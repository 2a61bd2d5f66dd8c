"""The programs as a user runs them, on a folder of twelve small pictures."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdiff.cli.main import main
from jaxdiff.training import load_params

CONFIG = """
from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig

def config():
    return Experiment(
        name="tiny",
        data=DataConfig(name={folder!r}, split="all", size=8),
        task=picture.Config(
            process=picture.ProcessConfig(prediction="x0"),
            net=UNetConfig(channels=(8, 8), layers=1, attention=("none", "cross"), mid_attention="none", heads=(1, 2),
                           depth=(1, 1), groups=4, pooled=True),
            text=TextConfig(vocabulary=300, length=8, width=8, layers=1, heads=2),
            vocabulary=300,
            preview=PreviewConfig(prompts=("red", "blue"), steps=3),
        ),
        optimizer=OptimizerConfig(lr=1e-2),
        train=TrainConfig(steps=6, batch_size=8, log_every=1),
        checkpoint=CheckpointConfig(every=3),
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a config and captioned pictures, and the caches kept out of the home directory."""
    top = tmp_path_factory.mktemp("cli")
    (top / "pictures").mkdir()
    for i in range(12):
        color = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 200, 0)}
        name = list(color)[i % 3]
        Image.new("RGB", (8, 8), color[name]).save(top / "pictures" / f"{i}.png")
        (top / "pictures" / f"{i}.txt").write_text(name)
    (top / "tiny.py").write_text(CONFIG.format(folder=str(top / "pictures")))
    return top


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)


def train(place, *args):
    main(["train", str(place / "tiny.py"), *args])


@pytest.fixture(scope="module")
def run(place):
    patch = pytest.MonkeyPatch()
    patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    train(place, "--workdir", str(place / "run"))
    patch.undo()
    return place / "run"


def failure(capsys, *argv):
    with pytest.raises(SystemExit) as error:
        main(list(argv))
    printed = capsys.readouterr()
    return error.value.code, printed.out + printed.err


def test_a_run_leaves_checkpoints_metrics_and_pictures(run):
    assert (run / "checkpoints" / "6" / "ema_params").is_dir()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert json.loads((run / "config.json").read_text())["train"]["steps"] == 6


def test_the_held_out_loss_is_measured_without_dropout(place, run, tmp_path):
    def last(rate):
        workdir = shutil.copytree(run, tmp_path / rate)
        more = ["--train.steps", "7", "--optimizer.lr", "1e-30", "--held_out", "all", "--task.net.dropout", rate]
        train(place, "--workdir", str(workdir), *more)
        return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])

    with_it, without = last("0.9"), last("0.0")  # a step that changes nothing, from the same weights
    assert with_it["loss"] != without["loss"]
    assert with_it["ema_loss"] == without["ema_loss"]


def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(place, run):
    # the same length of the cosine, stopped by failing where the preview after step 3 would be written
    blocked = place / "again"
    (blocked).mkdir()
    (blocked / "samples").write_text("a file where a folder is wanted")
    with pytest.raises(SystemExit):
        train(place, "--workdir", str(blocked), "--train.preview_every", "4")
    assert not (blocked / "checkpoints" / "6").exists()
    (blocked / "samples").unlink()
    train(place, "--workdir", str(blocked), "--train.preview_every", "4")
    assert (blocked / "samples" / "prompts" / "000004.png").is_file()
    ours, theirs = load_params(blocked), load_params(run)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_sample_carries_what_made_it(run, tmp_path, capsys):
    out = tmp_path / "new" / "s.png"
    long = "red blue green red blue green red blue"
    common = ["--steps", "3", "--out", str(out)]
    main(["sample", "--model", str(run), "--prompt", "red", long, "--num", "2", "--seed", "5", *common])
    made_by = json.loads(Image.open(out).text["parameters"])
    assert made_by["prompt"] == ["red", long]
    assert made_by["seed"] == 5
    assert made_by["guidance"] == 3.0
    assert "does not see" in capsys.readouterr().err
    made = []
    for model in (run, run / "checkpoints" / "6", run / "checkpoints" / "3"):
        main(["sample", "--model", str(model), "--prompt", "red", "--num", "1", *common])
        assert json.loads(Image.open(out).text["parameters"])["model"] == str(model)
        made.append(np.asarray(Image.open(out)))
    np.testing.assert_array_equal(made[0], made[1])  # the last checkpoint
    assert (made[0] != made[2]).any()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--task.net.channels", "8", "12"), "of another shape"),
        (("--task.text.width", "4"), "of another shape"),
        (("--optimizer.name", "sgd"), "unknown here"),
        (("--train.batch_size", "16"), "batch_size 8, not 16"),
        (("--data.name", "nowhere"), "nowhere"),
        (("--seed", "-1"), "seed is -1"),
    ],
)
def test_a_command_that_is_refused_changes_nothing(place, run, tmp_path, capsys, args, words):
    workdir = shutil.copytree(run, tmp_path / "run")
    before = files(workdir)
    code, text = failure(
        capsys, "train", str(place / "tiny.py"), "--workdir", str(workdir), "--train.steps", "9", *args
    )
    assert code == 1
    assert words in text
    assert files(workdir) == before


def test_a_run_whose_vocabulary_is_missing_is_not_given_another(place, run, tmp_path, capsys):
    workdir = shutil.copytree(run, tmp_path / "run")
    (workdir / "vocabulary.json").unlink()
    for argv in (("train", str(place / "tiny.py"), "--workdir"), ("sample", "--model")):
        code, text = failure(capsys, *argv, str(workdir))
        assert code == 1
        assert "vocabulary.json is missing" in text
    (workdir / "vocabulary.json").write_text('{"format')
    code, text = failure(capsys, "train", str(place / "tiny.py"), "--workdir", str(workdir))
    assert "vocabulary.json is damaged" in text
    assert (workdir / "vocabulary.json").read_text() == '{"format'


def test_another_architecture_is_told_leaf_by_leaf(place, run, capsys):
    code, text = failure(
        capsys,
        "train",
        str(place / "tiny.py"),
        "--workdir",
        str(run),
        "--train.steps",
        "9",
        "--task.net.channels",
        "8",
        "12",
    )
    assert code == 1
    assert "of another shape: params/unet/down_1/" in text


def test_a_loss_that_is_not_finite_stops_the_run(place, capsys, tmp_path):
    code, text = failure(
        capsys,
        "train",
        str(place / "tiny.py"),
        "--workdir",
        str(tmp_path),
        "--optimizer.lr",
        "1e30",
        "--train.steps",
        "30",
    )
    assert code == 1
    assert "step " in text
    assert "last good checkpoint" in text


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--train.batchsize", "8"], 2, "batch"),
        (["--train.batch_size", "many"], 2, "many"),
        (["--train.batch_size", "12"], 1, "does not divide by 8 devices"),
        (["--task.preview.sampler", "dimm"], 1, "unknown sampler 'dimm': expected one of ddim"),
        (["--data.name", "openmojo"], 1, "openmoji"),
        (["--task.net.patch", "3"], 1, "8x8 does not cut into patches of 3"),
        (["--checkpoint.best", "ema_loss"], 1, "held_out"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_compiles(place, capsys, tmp_path, args, code, words):
    got, text = failure(capsys, "train", str(place / "tiny.py"), "--workdir", str(tmp_path), *args)
    assert got == code
    assert words in text


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "usage"),
        (["trian"], 2, "no program 'trian'"),
        (["--help"], 0, "or resume its run"),
        (["train", "configs/nothing.py"], 1, "there are configs/cifar10.py, "),
        (["sample", "--model", "nowhere"], 1, "no model directory"),
    ],
)
def test_usage(capsys, argv, code, words):
    got, text = failure(capsys, *argv)
    assert got == code
    assert words in text
