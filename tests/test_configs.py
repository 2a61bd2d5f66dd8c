"""Every config runs small, resumes bit for bit, and is sampled."""

import functools
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image
from pipelines import directory

from jaxdiff import experiment, training
from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import main

NEEDS = {
    "openmoji_ldm": "openmoji_kl",
    "openmoji_ldm_vq": "openmoji_vq",
    "openmoji_vq_prior": "openmoji_vq",
    "ldm256": "openmoji_vq",
    "sd15": "openmoji_kl",
    "openmoji_dalle": "openmoji_dvae",
    "dalle": "openmoji_dvae",
}
"""Configs that stand on a run of another, their autoencoder's."""
BY_DEFAULT = ("quickstart",)
"""The others are `heavy`, but for the last stages of `SYSTEMS`, which are trained and sampled."""
SYSTEMS = ("openmoji_sr64", "openmoji_unclip", "openmoji_imagen64", "openmoji_glide_inpaint", "openmoji_dalle")
STAGES = (
    *("openmoji_base16", "openmoji_sr32", "openmoji_clip", "openmoji_prior", "openmoji_causal_prior"),
    *("openmoji_imagen32", "openmoji_glide", "openmoji_dvae"),
    *SYSTEMS,
)
"""All that they stand on, and themselves."""
CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.fixture(scope="module", autouse=True)
def cache():
    """Programs that one run compiled, the runs after it read, however small they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        before = jax.config.jax_persistent_cache_min_compile_time_secs
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        yield
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(config, previews every) -> the workdir of its small run: checkpoints at 3 and 6; what it needs is trained first.

    Previews are of two steps, since the state of the first is gone by the second.
    """

    @functools.cache
    def train(name, previews):
        path, workdir = CONFIGS[0].parent / f"{name}.py", tmp_path_factory.mktemp(name)
        train_small(path, workdir, *needed(path, previews), previews=previews)
        return workdir

    def needed(path, previews):
        if first_stage := NEEDS.get(path.stem):
            return ["--task.autoencoder", str(train(first_stage, previews))]
        task = read_config(path, small=True).task
        if hasattr(task, "model"):
            return ["--task.model", str(model(path.stem == "sd_progressive")), *more(path.stem)]
        if getattr(task, "fills", False):
            return ["--task.begin", str(train(path.stem.removesuffix("_inpaint"), previews))]
        runs = {name: getattr(task, name, None) for name in ("before", "clip", "prior", "teacher", "text_encoder")}
        named = {name: train(run.name.removesuffix("-small"), previews) for name, run in runs.items() if run}
        return [word for name, run in named.items() for word in (f"--task.{name}", str(run))]

    @functools.cache
    def model(predicts_v):
        return directory.save(tmp_path_factory.mktemp("model"), scheduler="ddim v" if predicts_v else "ddim")

    @functools.cache
    def more(name):
        """What a task has beside its model: an image encoder, or pairs of pictures."""
        folder = tmp_path_factory.mktemp(name)
        if name == "sd_ip_adapter":
            return ["--task.image_encoder", str(directory.save_part(folder, "tiny vision"))]
        if name != "sd_instruct":
            return []
        for n, colour in enumerate(["red", "blue", "green", "white"] * 2):
            Image.new("RGB", (16, 16), colour).save(folder / f"{n}.png")
        lines = [{"file_name": f"{n}.png", "text": "other", "hint": f"{7 - n}.png"} for n in range(8)]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return ["--data.name", str(folder), "--data.subset", "all"]

    train.needed = needed
    return train


def train_small(path, workdir, *more, previews=0):
    main(["train", str(path), "--small", "--workdir", str(workdir), "--train.preview_every", str(previews), *more])


def picture(task, folder):
    return ["--prompt", [*task["preview"]["prompts"], ""][0], "--steps", "2", "--num", "1"]


def first_stage(task, folder):
    Image.new("RGB", (20, 16), "red").save(folder / "red.png")
    return ["--init", str(folder / "red.png")]


def seen(*options):
    """Words for a task whose model is given the same picture by each of these options."""

    def words(task, folder):
        Image.new("RGB", (16, 16), "white").save(folder / "seen.png")
        return [*picture(task, folder), *(word for option in options for word in (option, str(folder / "seen.png")))]

    return words


TOLD = (
    "picture",
    "super_resolution",
    "unclip_decoder",
    "latent",
    "finetune",
    "lora",
    "textual_inversion",
    "lcm",
    "lcm_lora",
    "progressive",
    "dmd",
    "picture_lcm",
    "picture_dmd",
)
WORDS = {
    **dict.fromkeys(TOLD, picture),
    **dict.fromkeys(("controlnet", "t2i_adapter"), seen("--hint")),
    "instruct": seen("--image"),
    "inpaint": seen("--image", "--mask"),
    "ip_adapter": seen("--picture"),
    "glide": lambda task, folder: (seen("--image", "--mask") if task["fills"] else picture)(task, folder),
    "first_stage": first_stage,
    "dvae": first_stage,
    "text_to_tokens": lambda task, folder: ["--prompt", "cat", "--num", "1", "--top-k", "5"],
    "code_prior": lambda task, folder: ["--num", "1"],
}
"""The words of `jaxdiff sample` that each kind of task takes."""


UNSEEN = ("clip", "prior", "causal_prior")
"""Kinds of tasks that draw nothing by themselves."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in BY_DEFAULT else pytest.mark.heavy) for path in CONFIGS],
)
def test_every_config_runs_small_resumes_and_is_sampled(path, tmp_path, trained):
    whole, parts = trained(path.stem, 3), tmp_path / "parts"
    told = json.loads((whole / "config.json").read_text())
    assert told["name"] == f"{path.stem}-small"
    if {"process", "model"} & told["task"].keys():  # a loss of diffusion is told by its noise
        lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
        assert all(np.isfinite(line[f"loss_q{n}"]) for line in lines for n in range(4))
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "6")  # as if it had been killed there
    train_small(path, parts, *trained.needed(path, 3))
    saved = [jax.tree.leaves(training.load_params(at / "checkpoints" / "6")) for at in (parts, whole)]
    for ours, other in zip(*saved, strict=True):
        np.testing.assert_array_equal(ours, other)
    if told["task"]["kind"] in UNSEEN:
        assert experiment.open_run(parts).weights.params
        return
    draw(parts, tmp_path)


def draw(run, folder):
    task, out = json.loads((run / "config.json").read_text())["task"], folder / "sample.png"
    main(["sample", "--model", str(run), "--out", str(out), *WORDS[task["kind"]](task, folder)])
    assert Image.open(out).size[0] >= 16


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_trained_small_from_its_first_stage_and_sampled(name, tmp_path, trained):
    draw(trained(name, 0), tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem)
        for path in CONFIGS
        if path.stem.startswith(("sd_", "quickstart_")) or path.stem in STAGES
    ],
)
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(path, tmp_path, trained):
    """SIGKILL as soon as two steps are logged: at a save, or before it."""
    whole, killed = trained(path.stem, 3), tmp_path / "killed"
    words = ["train", str(path), "--small", "--workdir", str(killed), "--train.preview_every", "0"]
    program = "import sys; from jaxdiff.cli.main import main; main(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", program, *words, *trained.needed(path, 3)], cwd=path.parents[1])
    log = killed / "metrics.jsonl"
    while not (log.exists() and '"step": 2,' in log.read_text()):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "checkpoints" / "6").exists()
    train_small(path, killed, *trained.needed(path, 3))
    saved = [jax.tree.leaves(training.load_params(at / "checkpoints" / "6")) for at in (killed, whole)]
    for ours, other in zip(*saved, strict=True):
        np.testing.assert_array_equal(ours, other)
