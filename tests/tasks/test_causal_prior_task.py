"""The autoregressive prior: what is measured of the data, what the loss is, and what its bundle imagines."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.clip_data import DATA, drawn, few, placed

from jaxdiff.models import causal_prior as model
from jaxdiff.models.causal_prior import CausalPrior, CausalPriorConfig
from jaxdiff.pipelines import imagine
from jaxdiff.pipelines.imagine import PriorPipeline
from jaxdiff.tasks import causal_prior, kept_clip
from jaxdiff.training import Known, OptimizerConfig

NET = CausalPriorConfig(embed=6, text=8, length=8, kept=4, bins=8, width=8, layers=1, heads=2)
PRIOR = causal_prior.Config(net=NET, drop=0.0)


@pytest.fixture(scope="module")
def assets(run):
    PRIOR._measure(run, kept_clip.read(run), few())
    return PRIOR.assets(run, DATA)


def test_codes_are_measured_of_the_data_once(run, assets):
    seen, heard = kept_clip.both(assets.kept, few())
    expected = model.fit(seen, heard, NET)
    for name, x in assets.measured.items():
        np.testing.assert_array_equal(x, expected[name])
    written = (run / "codes.safetensors").read_bytes()
    PRIOR._measure(run, assets.kept, few())
    assert (run / "codes.safetensors").read_bytes() == written


def test_the_loss_is_the_codes_likelihood_and_a_caption_is_left_out_but_for_the_dot_product(assets):
    losses, shares = [], []
    for drop in (0.0, 1.0):
        task = dataclasses.replace(PRIOR, drop=drop).task(assets)
        weights = drawn(task)
        rows = [task.example(few()[i], np.random.default_rng(0)) for i in range(3)]
        batch = {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}
        keys = jax.random.split(jax.random.key(0), 3)
        known = Known(weights.frozen, {}, {}, 0)
        losses.append(float(jax.jit(task.loss)(weights.params, known, batch, keys)[0]))
        text_net, frozen = assets.kept.text.config, weights.frozen
        embed = kept_clip.embed(assets.kept.image.config, frozen["image_encoder"], batch["image"])
        text = imagine.read(text_net, frozen["text_encoder"], batch["tokens"])
        shares.append(model.nearness(assets.measured, embed, text.pooled))
        if drop:
            empty = jnp.asarray(assets.kept.tokenizer.encode("", 8))
            text = imagine.read(text_net, frozen["text_encoder"], jnp.tile(empty, (3, 1)))
        codes = model.encode(assets.measured, embed, NET.bins)
        params = {**weights.params, **assets.measured}
        logits = np.asarray(CausalPrior(NET).apply({"params": params}, text, shares[-1], codes), np.float64)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = -np.take_along_axis(logits, np.asarray(codes)[..., None], -1).mean()
        np.testing.assert_allclose(losses[-1], expected, rtol=1e-5)
    assert losses[0] != losses[1]
    np.testing.assert_array_equal(*shares)


@pytest.mark.heavy
def test_its_bundle_imagines_embeddings_within_what_was_measured(assets):
    pipe = PriorPipeline(PRIOR.bundle(assets, drawn(PRIOR.task(assets))), devices=jax.devices()[:1])
    assert pipe.clip == assets.kept.clip
    embed = pipe(["red heart"], keys=jax.random.split(jax.random.key(0), 1))[0]
    codes = model.encode(assets.measured, embed, NET.bins)
    np.testing.assert_allclose(model.decode(assets.measured, codes, NET.bins), embed, atol=1e-5)


def test_the_network_trains_without_what_was_measured(assets):
    task = PRIOR.task(assets)
    batch = {"image": np.zeros((1, 8, 8, 3), np.uint8), "tokens": np.zeros((1, 8), np.int32)}
    shapes = jax.eval_shape(task.init, jax.random.key(0), task.load(placed), batch)
    assert not shapes.params.keys() & assets.measured.keys()
    assert set(shapes.frozen) == {"image_encoder", "text_encoder"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drop": 1.5}, "task.drop is 1.5"),
        ({"net": dataclasses.replace(NET, kept=7)}, "task.net.kept is 7: embeddings have 6 components"),
        ({"net": dataclasses.replace(NET, bins=1)}, "task.net.bins is 1: expected 2"),
        ({"net": dataclasses.replace(NET, heads=3)}, "does not divide into 3 heads"),
        ({"net": dataclasses.replace(NET, dtype="int4")}, "dtype is 'int4'"),
    ],
)
def test_numbers_that_do_not_fit_are_named(changes, words):
    PRIOR.check(DATA, OptimizerConfig())
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(PRIOR, **changes).check(DATA, OptimizerConfig())


def test_files_of_other_numbers_are_named(run, assets, tmp_path):
    for name, value in (("embed", 5), ("length", 7), ("text", 9)):
        other = dataclasses.replace(PRIOR, net=dataclasses.replace(NET, **{name: value}))
        with pytest.raises(ValueError, match=rf"task.net.{name} is {value}, and .* has \d: set it to that"):
            other.assets(run, DATA)
    with pytest.raises(ValueError, match="is of other numbers than"):
        dataclasses.replace(PRIOR, net=dataclasses.replace(NET, kept=3)).assets(run, DATA)
