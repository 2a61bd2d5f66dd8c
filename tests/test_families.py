"""Every config of a family is checked; one of each task is trained, resumed, sampled and measured by the commands."""

import dataclasses
import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdiff import experiment, training
from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import main
from jaxdiff.loading import load

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs" / "families").glob("*.py"))
DIGITS, *REST = (sorted((CONFIGS[0].parents[1] / name).glob("*.py")) for name in ("digits", "sound", "text", "spaces"))
OTHERS = [path for paths in REST for path in paths]
"""Those of no pictures, which their own tests train."""
CORE = ("picture", "unet", "text", "autoencoder_kl")
"""Modules of diffusion on pictures and in latents, which are no one family's."""
OF_TASKS = ("made",)
"""One config of each kind of task; the others are `heavy`."""


@pytest.mark.parametrize("path", [*CONFIGS, *DIGITS, *OTHERS], ids=lambda path: path.stem)
def test_every_config_passes_its_checks_and_survives_json(path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    config, small = read_config(path), read_config(path, small=True)
    experiment.check(config)
    experiment.check(small)
    assert experiment.from_json(experiment.to_json(config)) == config
    assert (config.name, small.name) == (path.stem, f"{path.stem}-small")
    header = " ".join(path.read_text().partition('"""')[2].partition('"""')[0].split())
    words = ("Paper", "Hardware: ", "ime", "esult", f"Command: jaxdiff train configs/{path.parent.name}/{path.name}")
    assert all(word in header for word in words)


@pytest.mark.parametrize("path", [*CONFIGS, *DIGITS, *OTHERS], ids=lambda path: path.stem)
def test_a_family_is_read_beside_its_paper(path):
    """Its task in less than 150 lines, its networks in less than 250 a file."""
    task = read_config(path).task
    parts = [task, *(getattr(task, field.name) for field in dataclasses.fields(task))]
    for module in {type(part).__module__ for part in parts}:
        _, layer, *name = module.split(".") if module.startswith("jaxdiff.") else ("", "")
        if layer in ("tasks", "models") and name[0] not in CORE:
            lines = len(pathlib.Path(sys.modules[module].__file__).read_text().splitlines())
            assert lines < {"tasks": 150, "models": 250}[layer], f"{module} has {lines} lines"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures of two classes, with the splits train and test."""
    top, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name, color in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            (top / split / name).mkdir(parents=True)
            for i in range(8):
                noise = rng.integers(-60, 60, (8, 8, 3))
                image = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(image).save(top / split / name / f"{i}.png")
    return top


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in OF_TASKS else pytest.mark.heavy)
        for path in [*CONFIGS, *DIGITS]
    ],
)
def test_a_family_is_trained_resumed_sampled_and_measured(path, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    whole, parts, out = tmp_path / "whole", tmp_path / "parts", tmp_path / "sample.png"
    words = ["--small", "--data.name", str(pictures), "--data.subset", "all"]
    config = read_config(path)
    classes = getattr(config.task, "classes", 0)
    conditional = getattr(config.task, "conditional_classes", classes)
    words += ["--task.classes", "2"] if classes else []
    main(["train", str(path), "--workdir", str(whole), *words])
    assert {len(list(kind.glob("*.png"))) for kind in (whole / "samples").iterdir()} == {2}
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "6")  # as if it had been killed there
    main(["train", str(path), "--workdir", str(parts), *words])
    saved = [jax.tree.leaves(training.load_params(at / "checkpoints" / "6")) for at in (parts, whole)]
    for ours, other in zip(*saved, strict=True):
        np.testing.assert_array_equal(ours, other)
    main(["sample", "--model", str(parts), "--out", str(out), "--num", "2", "--prompt", "red" if conditional else ""])
    assert Image.open(out).size[0] >= 16
    task = experiment.read(parts).task
    if not hasattr(task, "likelihood"):
        return  # continuous diffusion, whose likelihoods have tests of their own
    measure = ["evaluate", "--model", str(parts), "--metrics", "bits", "--workdir", str(tmp_path / "measured")]
    measure += ["--split", "test", "--batch-size", "1"]
    if not task.likelihood:
        with pytest.raises(SystemExit):
            main(measure)
        assert "bits: this model has no such likelihood: it gives pictures and no density" in capsys.readouterr().err
        return
    main(measure)
    ((name, told),) = json.loads((tmp_path / "measured" / "results.json").read_text())["metrics"].items()
    assert name.startswith(f"bits/dim ({task.likelihood}")
    assert 0 < told["value"] < 20
    with pytest.raises(SystemExit):
        main([*measure[:3], "--metrics", "ode", *measure[5:]])
    assert "ode: this model has no such likelihood: ask for bits" in capsys.readouterr().err
    pipe = load(parts)
    for wrong, message in (({"prompts": ["green"]}, "no class of this model"), ({"steps": 3}, "no option 'steps'")):
        with pytest.raises(ValueError, match=message):
            pipe(**{"prompts": [""], "key": jax.random.key(0), **wrong})
