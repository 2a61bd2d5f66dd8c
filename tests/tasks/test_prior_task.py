"""Priors and decoders on a CLIP that a run keeps: what they are told, what is measured, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks import test_clip_task
from tasks.clip_data import DATA, drawn, few, placed

from jaxdiff.models.prior import PriorConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pipelines import imagine
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagine import PriorPipeline
from jaxdiff.pipelines.imagined import Imagined
from jaxdiff.pipelines.prior_options import PriorOptions
from jaxdiff.tasks import kept_clip, prior, unclip_decoder
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import Known, OptimizerConfig

PRIOR = prior.Config(
    net=PriorConfig(embed=6, text=8, vector=6, length=8, layers=1, heads=1, head_dim=8),
    drop=0.0,
)
NET = UNetConfig(
    channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=4,
    addition="image",
)  # fmt: skip
DECODER = unclip_decoder.Config(net=NET, condition="none", drop=0.0, preview=PreviewConfig(guidance=1.0))


def test_mean_and_deviation_are_those_of_the_embeddings_of_the_data(run, kept):
    source = few()
    part = kept.image
    params = kept_clip.load(kept, ("image_encoder",), placed)["image_encoder"]
    images = np.stack([source[i]["image"] for i in range(len(source))])
    seen = np.asarray(kept_clip.embed(part.config, params, jnp.asarray(images)), np.float64)
    np.testing.assert_allclose(kept.mean, seen.mean(0), atol=1e-5)
    np.testing.assert_allclose(kept.deviation, seen.std(0), rtol=1e-4)
    assert kept.tokenizer.ids == test_clip_task.ASSETS.tokenizer.ids
    assert kept_clip.hash_of(run) == kept.clip
    assert kept_clip.hash_of(run / "nothing") == ""


def test_a_prior_learns_the_embedding_less_its_mean_over_its_deviation(kept, monkeypatch):
    """The loss is given x0 by its formula, and the dropped captions are the empty text."""
    given = {}

    def loss(self, apply):
        return lambda params, known, x0, cond, keys: given.update(x0=x0, cond=cond) or (x0.mean(), {}, {})

    monkeypatch.setattr(prior.ProcessConfig, "loss", loss)
    task = dataclasses.replace(PRIOR, drop=1.0).task(kept)
    frozen = task.load(placed)
    rows = [
        task.example({"image": few()[i]["image"], "caption": text}, np.random.default_rng(0))
        for i, text in enumerate(test_clip_task.CAPTIONS)
    ]
    batch = {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}
    task.loss({}, Known(frozen, {}, {}, 0), batch, jax.random.split(jax.random.key(0), 8))
    embed = kept_clip.embed(kept.image.config, frozen["image_encoder"], batch["image"])
    np.testing.assert_allclose(np.asarray(given["x0"]) * kept.deviation + kept.mean, embed, atol=1e-5)
    empty = kept.tokenizer.encode("", 8)[None]
    alone = imagine.read(kept.text.config, frozen["text_encoder"], jnp.asarray(empty))
    np.testing.assert_allclose(given["cond"].pooled, np.repeat(alone.pooled, 8, 0), atol=1e-6)


def test_an_embedding_that_is_left_out_is_what_guidance_leads_away_from(kept):
    images = {"image": jnp.asarray(np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8))}
    assets = unclip_decoder.Assets(8, kept)
    frozen = DECODER._kept(assets, placed)
    keys = jax.random.split(jax.random.key(0), 64)
    model = dataclasses.replace(DECODER, drop_embed=0.4)
    made = np.asarray(model._drawn(assets, frozen, images, keys)["embed"])
    seen = np.asarray(kept_clip.embed(kept.image.config, frozen["image_encoder"], images["image"]))
    away = np.asarray(imagine.nothing({"image_encoder": kept.image.config}, frozen, jnp.asarray(seen)))
    gone = np.abs(made - away).max(1) < 1e-5
    assert 0.2 < gone.mean() < 0.6
    np.testing.assert_allclose(made[~gone], seen[~gone], atol=1e-5)


@pytest.mark.heavy
def test_a_decoder_draws_what_its_prior_imagines_and_varies_a_picture(kept):
    whole = drawn(PRIOR.task(kept))
    first = PriorPipeline(PRIOR.bundle(kept, whole), devices=jax.devices()[:1])
    assets = unclip_decoder.Assets(8, kept)
    decoder = DECODER.bundle(assets, drawn(DECODER.task(assets)))
    drawer = DiffusionPipeline(decoder, devices=jax.devices()[:1])
    pipe, options = Imagined(first, drawer), PriorOptions(prior_steps=2)
    embeds = [
        np.asarray(first([text], keys=jax.random.split(jax.random.key(0), 1), options=options)[0])
        for text in ("red heart", "green book")
    ]
    assert np.abs(embeds[0] - embeds[1]).max() > 1e-6
    drawn_alone = [drawer([""], key=jax.random.key(0), embed=embed, steps=2) for embed in (embeds[0], -9 * embeds[0])]
    assert (drawn_alone[0] != drawn_alone[1]).any()
    assert pipe(["red heart"], key=jax.random.key(0), steps=2, prior_steps=2).shape == (1, 8, 8, 3)
    picture = np.full((1, 8, 8, 3), 200, np.uint8)
    assert pipe([""], key=jax.random.key(0), picture=picture, steps=2).shape == (1, 8, 8, 3)
    told = pipe.settings({"steps": 2})
    assert (told[0]["prior_steps"], told[1]["steps"], told[1]["size"]) == (25, 2, [8, 8])
    other = DiffusionPipeline(dataclasses.replace(decoder, index={"clip": "another"}), devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="embeddings of another CLIP"):
        Imagined(first, other)


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        (PRIOR, {"drop": 1.5}, "task.drop is 1.5"),
        (PRIOR, {"process": dataclasses.replace(PRIOR.process, clip=1.0)}, "task.process.clip is 1.0"),
        (PRIOR, {"process": dataclasses.replace(PRIOR.process, variance="learned", times="steps")}, "task.process"),
        (PRIOR, {"net": dataclasses.replace(PRIOR.net, layers=0)}, "task.net.layers is 0"),
        (PRIOR, {"net": dataclasses.replace(PRIOR.net, dtype="int4")}, "dtype is 'int4'"),
        (DECODER, {"drop_embed": -0.1}, "task.drop_embed is -0.1"),
        (DECODER, {"net": dataclasses.replace(NET, addition="")}, "task.net.addition is '' and task.net.tokens ''"),
        (
            DECODER,
            {"net": dataclasses.replace(NET, tokens="text_image", context_width=4)},
            "task.net.tokens is 'text_image' and task.condition 'none'",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_named(model, changes, words):
    model.check(DATA, OptimizerConfig())
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(model, **changes).check(DATA, OptimizerConfig())


def test_another_clip_or_another_width_is_named(run, tmp_path):
    for name, value in (("embed", 5), ("vector", 5), ("length", 7), ("text", 9)):
        model = dataclasses.replace(PRIOR, net=dataclasses.replace(PRIOR.net, **{name: value}))
        with pytest.raises(ValueError, match=rf"task.net.{name} is {value}, and .* has \d: set it to that"):
            model.assets(run, DATA)
    with pytest.raises(FileNotFoundError, match="there is no CLIP at"):
        kept_clip.keep(tmp_path, tmp_path / "gone", few())
    with pytest.raises(ValueError, match=r"task.clip is not given"):
        kept_clip.keep(tmp_path, None, few())
    (tmp_path / "embeddings.json").write_text('{"clip": "abcdefabcdef00"}')
    model = dataclasses.replace(DECODER, clip=run, prior=tmp_path)
    with pytest.raises(ValueError, match=r"stands on another CLIP \(abcdefabcdef\)"):
        model.assets(tmp_path / "new", DATA, few(), new=True)
    with pytest.raises(FileNotFoundError, match="image_encoder is missing"):
        PRIOR.assets(tmp_path, DATA)
