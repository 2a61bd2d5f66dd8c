"""One more kind of model is one file in somebody else's package: trained, resumed and sampled by the command line.

The toy is a table of colours, one for each class, moved towards the pictures; beside it are weights read from a file
(frozen), and the mean colour of the batches (extra).
"""

import json
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import jaxdiff
from jaxdiff import experiment, tasks
from jaxdiff.cli.main import main

TASK = '''
"""A colour for each class."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.tasks import TaskConfig
from jaxdiff.training import OptimizerConfig, Preview, Task, Variables
from jaxdiff.training.workdir import write_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """A colour for each class.

    Attributes:
      classes: how many.
      target: a file with the frozen scale.
    """

    classes: int = 2
    target: str = ""

    def check(self, data, optimizer):
        if self.classes < 1:
            raise ValueError(f"task.classes is {self.classes}: expected 1 or more")

    def assets(self, folder, data, source=None, *, new=False):
        if new:
            write_text(folder / "classes.txt", "\\n".join(sorted(set(source.captions()))))
        return (folder / "classes.txt").read_text().splitlines()

    def task(self, assets, spec=None):
        def init(key, loaded, batch):
            table = jax.random.normal(key, (self.classes, 3))
            return Variables({"table": table, "bias": jnp.zeros(3)}, loaded, {"mean": batch["color"].mean(0) * 0})

        def loss(params, known, batch, keys):
            made = (params["table"][batch["label"]] + params["bias"][None]) * known.frozen["scale"]
            return jnp.mean((made - batch["color"]) ** 2), {"at": 1.0 * known.step}, {"mean": batch["color"].mean(0)}

        def example(one, rng):
            noise = rng.normal(size=3) * 1e-3
            color = one["image"].mean((0, 1)) / 255 + noise
            return {"color": color.astype(np.float32), "label": np.int32(assets.index(one["caption"] or assets[0]))}

        def load(place):
            scale = np.load(self.target)
            at = place({"scale": jax.ShapeDtypeStruct(scale.shape, scale.dtype)})
            return {"scale": jax.device_put(scale, at["scale"])}

        def preview(weights, key):
            return Preview(self.pipeline(assets, weights)(assets, key=key), tuple(assets))

        return Task(
            init=init,
            loss=loss,
            example=example,
            load=load,
            absorb=lambda extra, stats: {"mean": 0.5 * (extra["mean"] + stats["mean"])},
            groups=(("bias", OptimizerConfig(name="sgd", lr=1e-3, decay="constant")),),
            averaged=("table",),
            previews={"colors": preview},
        )

    def pipeline(self, assets, weights, spec=None):
        return Colors(assets, weights)


@dataclasses.dataclass(frozen=True)
class Options:
    """What a call may be given.

    Attributes:
      shade: how bright the colours are.
    """

    shade: float = 1.0


class Colors:
    Options = Options

    def __init__(self, labels, weights):
        self.labels, self.weights = labels, weights

    def __call__(self, prompts, *, key, options=Options()):
        rows = [self.labels.index(prompt) for prompt in prompts]
        colors = np.asarray(self.weights.params["table"])[rows] * np.asarray(self.weights.frozen["scale"])
        return np.clip(options.shade * colors[:, None, None] * np.ones((1, 8, 8, 1)) * 255, 0, 255).astype(np.uint8)
'''

CONFIG = """
from colors.tasks import palette
from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config():
    return Experiment(
        name="colors",
        task=palette.Config(target={target!r}),
        data=DataConfig(name={folder!r}, split="all", size=4),
        optimizer=OptimizerConfig(name="adam", lr=0.3),
        train=TrainConfig(steps=40, batch_size=16, log_every=1, preview_every=20),
        checkpoint=CheckpointConfig(every=10),
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A package with an entry point, as pip would install it, and pictures of two classes."""
    top = tmp_path_factory.mktemp("package")
    (top / "colors" / "tasks").mkdir(parents=True)
    (top / "colors" / "__init__.py").write_text("")
    (top / "colors" / "tasks" / "__init__.py").write_text("")
    (top / "colors" / "tasks" / "palette.py").write_text(TASK)
    (top / "colors-1.0.dist-info").mkdir()
    (top / "colors-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: colors\nVersion: 1.0\n")
    (top / "colors-1.0.dist-info" / "entry_points.txt").write_text("[jaxdiff.tasks]\npalette = colors.tasks.palette\n")
    for name, color in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        (top / "pictures").mkdir(exist_ok=True)
        for i in range(4):
            Image.new("RGB", (4, 4), color).save(top / "pictures" / f"{name}{i}.png")
            (top / "pictures" / f"{name}{i}.txt").write_text(name)
    np.save(top / "scale.npy", np.full((1, 3), 0.5, np.float32))
    (top / "colors.py").write_text(CONFIG.format(folder=str(top / "pictures"), target=str(top / "scale.npy")))
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(top)
    patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    yield top
    patch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] == "colors"]:
        del sys.modules[name]


def test_the_kind_is_found_by_its_entry_point(place):
    assert "palette" in tasks.KINDS.names()
    assert tasks.KINDS.find("palette").__module__ == "colors.tasks.palette"


def test_it_is_trained_resumed_and_sampled(place, capsys):
    def train(workdir, *more):
        main(["train", str(place / "colors.py"), "--workdir", str(place / workdir), *more])

    train("whole")
    told = json.loads((place / "whole" / "config.json").read_text())
    assert told["task"] == {"kind": "palette", "classes": 2, "target": str(place / "scale.npy")}
    assert (place / "whole" / "samples" / "colors" / "000040.png").is_file()
    lines = [json.loads(line) for line in (place / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]
    assert {"lr/rest", "lr/bias", "grad_norm/rest", "grad_norm/bias", "update_norm"} <= lines[0].keys()

    (place / "parts").mkdir()
    (place / "parts" / "samples").write_text("a file where a folder is wanted stops the run at its first preview")
    with pytest.raises(SystemExit):
        train("parts")
    (place / "parts" / "samples").unlink()
    train("parts")
    whole, parts = (experiment.open_run(place / name) for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole.weights, parts.weights)
    assert [*whole.weights.params] == ["table"]
    assert np.asarray(whole.weights.extra["mean"]).sum() == pytest.approx(1, abs=0.05)  # red and blue, half each
    np.testing.assert_array_equal(whole.weights.frozen["scale"], 0.5)
    saved = [path.name for path in (place / "whole" / "checkpoints" / "40" / "state").rglob("*")]
    assert not [name for name in saved if "scale" in name]

    made = jaxdiff.load(place / "whole")(["red", "blue"], key=jax.random.key(0))
    assert made.shape == (2, 8, 8, 3)
    assert made[0, 0, 0].argmax() == 0
    assert made[1, 0, 0].argmax() == 2


def test_the_command_line_samples_it(place, capsys):
    """After the test above."""
    words = ["--prompt", "red", "blue", "--num", "1", "--out", str(place / "out.png")]
    main(["sample", "--model", str(place / "whole"), *words, "--shade", "0.5"])
    assert "2 pictures" in capsys.readouterr().out
    assert json.loads(Image.open(place / "out.png").text["parameters"])["shade"] == 0.5
    with pytest.raises(SystemExit):
        main(["sample", "--model", str(place / "whole"), *words, "--steps", "5"])
    assert "--steps is not an option of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sample", "--model", str(place / "whole"), "--help"])
    shown = capsys.readouterr().out
    assert "how bright the colours are" in shown
    assert "--steps" not in shown


def test_its_fields_are_on_the_command_line_and_checked(place, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(place / "colors.py"), "--workdir", str(place / "none"), "--task.classes", "0"])
    assert "task.classes is 0: expected 1 or more" in capsys.readouterr().err
    assert not (place / "none").exists()
