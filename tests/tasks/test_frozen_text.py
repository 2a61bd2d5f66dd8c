"""Pictures told by a frozen text encoder, which a run keeps: what the network is told, and what moves."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.clip_data import DATA, drawn, few, placed

from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import glide, picture, super_resolution, unclip_decoder
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import Known, OptimizerConfig

NET = UNetConfig(
    channels=(8,), layers=1, attention=("cross",), mid_attention="none", heads=(1,), depth=(1,), groups=4
)  # fmt: skip
PREVIEW = PreviewConfig(guidance=1.0)
MODEL = picture.Config(net=NET, condition="clip", drop=0.0, preview=PREVIEW)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """A new run's folder, with the text encoder of a directory."""
    path = tmp_path_factory.mktemp("frozen")
    dataclasses.replace(MODEL, text_encoder=run.with_name("clip")).assets(path, DATA, few(), new=True)
    return path


def batch_of(task, captions):
    rng = np.random.default_rng(1)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    rows = [task.example({"image": image, "caption": caption, "label": 0}, rng) for caption in captions]
    return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


def test_the_network_is_told_the_states_of_the_text_and_they_alone_stay_as_they_are(folder):
    assets = MODEL.assets(folder, DATA)
    task = MODEL.task(assets)
    weights = drawn(task)
    batch, keys = batch_of(task, ["red circle", "blue square"]), jax.random.split(jax.random.key(0), 2)
    text = assets.clip
    expected = ClipText(text.encoder.config).apply({"params": weights.frozen["text_encoder"]}, batch["tokens"])[0]
    told = MODEL._cond(assets, weights.params, weights.frozen, batch)
    np.testing.assert_allclose(told.context, expected, rtol=1e-5, atol=1e-5)
    assert set(weights.frozen) == {"text_encoder"}
    assert "text" not in weights.params
    loss = lambda params, frozen: task.loss(params, Known(frozen, {}, {}, 0), batch, keys)[0].mean()
    slopes = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(weights.params, weights.frozen))
    assert all(np.abs(x).max() > 0 for path, x in slopes if "attn2" in jax.tree_util.keystr(path))


def test_samples_follow_the_text_and_their_noise_is_the_seeds(folder):
    assets = MODEL.assets(folder, DATA)
    pipe = MODEL.pipeline(assets, drawn(MODEL.task(assets), scale=1.0))
    same, other = (pipe([text] * 2, key=jax.random.key(0), steps=2) for text in ("red circle", "blue square"))
    assert (same != other).any()
    assert pipe.compiled() == 1


def test_a_later_stage_reads_the_same_encoder(folder):
    net = dataclasses.replace(NET, augment=True)
    model = super_resolution.Config(net=net, condition="clip", drop=0.0, low=4, preview=PREVIEW)
    assets = model.assets(folder, DATA)
    task = model.task(assets)
    assert set(task.load(placed)) == {"text_encoder"}
    assert set(model.bundle(assets, drawn(task)).components) == {"unet", "text_encoder"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (dataclasses.replace(MODEL, condition="none", text_encoder=pathlib.Path("x")), "'none' does not read it"),
        (
            dataclasses.replace(MODEL, net=dataclasses.replace(NET, pooled=True)),
            "and task.net.pooled",
        ),
        (unclip_decoder.Config(net=dataclasses.replace(NET, addition="image"), condition="clip"), "trained with it"),
        (glide.Config(condition="clip"), "GLIDE reads text"),
    ],
)
def test_what_does_not_fit_is_named(config, words):
    with pytest.raises(ValueError, match=words):
        config.check(DATA, OptimizerConfig())


def test_an_encoder_that_is_not_given_or_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"give task\.text_encoder"):
        MODEL.assets(tmp_path, DATA, few(), new=True)
    with pytest.raises(FileNotFoundError, match="nowhere has no text_encoder"):
        dataclasses.replace(MODEL, text_encoder=tmp_path / "nowhere").assets(tmp_path, DATA, few(), new=True)
