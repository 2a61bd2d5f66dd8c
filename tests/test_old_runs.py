"""Runs from before there were tasks: their config.json has the fields of one model, their state three parts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from jaxdiff import experiment, trainer
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.tasks import saved
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.optimizer import decayed

CONFIG = {
    "name": "old",
    "seed": 0,
    "strategy": "mesh",
    "ema": 0.99,
    "held_out": "",
    "held_out_batches": 4,
    "vocabulary": 270,
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    "data": {"split": "all", "size": 8, "subset": "all", "flip": False, "articles": False, "dir": None, "workers": 2},
    "process": {"schedule": "cosine", "prediction": "x0", "weight": "simple", "condition": "text", "drop": 0.1},
    "unet": {
        "out_channels": 3,
        "channels": [8, 8],
        "layers": 1,
        "attention": ["none", "cross"],
        "mid_attention": "none",
        "heads": [1, 2],
        "depth": [1, 1],
        "groups": 4,
        "pooled": True,
        "dtype": "float32",
    },
    "text": {"vocabulary": 300, "length": 8, "width": 8, "layers": 1, "heads": 2, "dtype": "float32"},
    "optimizer": {"name": "adamw", "lr": 0.01, "warmup": 0, "decay": "cosine", "weight_decay": 0.01, "clip": 1.0},
    "train": {"steps": 4, "batch_size": 8, "accumulate": 1, "log_every": 1, "preview_every": 0},
    "checkpoint": {"every": 2, "keep": 3, "best": ""},
    "preview": {"prompts": ["red"], "sampler": "ddim", "steps": 2, "guidance": 3.0, "seed": 5},
}


@pytest.fixture
def old(tmp_path):
    """A run of 2 of 4 steps as it was written then, with random weights and moments."""
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(tmp_path / "pictures" / f"{i}.png")
        (tmp_path / "pictures" / f"{i}.txt").write_text("red")
    folder = tmp_path / "run"
    folder.mkdir()
    config = {**CONFIG, "data": {**CONFIG["data"], "name": str(tmp_path / "pictures")}}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "vocabulary.json").write_text(BytePair.learn(["red"], 270).to_json())
    now = experiment.read(folder)
    task = now.task.task(now.task.assets(folder, now.data))
    shapes = jax.eval_shape(task.init, jax.random.key(0), {}, saved.blank(task, now.data.size)).params
    rng = np.random.default_rng(0)
    random = lambda tree: jax.tree.map(lambda x: jnp.asarray(rng.random(x.shape) * 0.1, x.dtype), tree)
    params, average = random(shapes), random(shapes)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(0.9, 0.999, 1e-8),
        optax.add_decayed_weights(0.01, mask=decayed),
        optax.scale_by_learning_rate(optax.cosine_decay_schedule(0.01, 4)),
    )
    moved = jax.tree.map(lambda x: jnp.full_like(x, 2) if x.ndim == 0 else x, optimizer.init(random(shapes)))
    state = {"step": jnp.int32(2), "params": params, "opt_state": moved}
    where = {"batch": 2, "examples": 8, "batch_size": 8, "seed": 0}
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        manager.save(
            2,
            args=ocp.args.Composite(
                ema_params=ocp.args.StandardSave(average),
                state=ocp.args.StandardSave(state),
                run=ocp.args.JsonSave({"data": [where], "root": [0, 1]}),
            ),
        )
    return folder, average


def test_it_is_opened_and_resumed(old):
    folder, average = old
    run = experiment.open_run(folder)
    jax.tree.map(np.testing.assert_array_equal, run.weights.params, average)
    assert run.config.task.preview.prompts == ("red",)
    state = trainer.run(run.config, folder)
    assert int(state.step) == 4
    assert int(state.opt_state[1].count) == 4
    assert json.loads((folder / "config.json").read_text())["task"]["kind"] == "picture"
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest.name == "4"
    assert experiment.open_run(folder / "checkpoints" / "4").config == run.config
