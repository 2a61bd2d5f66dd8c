"""Variations, interpolations and text diffs: walks on the sphere in closed form, and pictures of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import test_kandinsky as kandinsky
from reference.sd_weights import noise

from jaxdiff.models.autoencoder_vq import AutoencoderVQ
from jaxdiff.pipelines import program
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagine import PriorPipeline
from jaxdiff.pipelines.imagined import Imagined
from jaxdiff.pipelines.vary import SeenOptions, VaryOptions, slerp
from jaxdiff.sampling import table

SEEN = kandinsky.picture("seen", 16)
OTHER = kandinsky.picture("other", 16)


@pytest.fixture(scope="module")
def prior():
    return PriorPipeline(kandinsky.prior_bundle(), devices=jax.devices()[:1])


def test_a_quarter_circle_is_walked_by_its_angle():
    a, b = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 4.0]])
    for t in (0.0, 0.25, 0.5, 1.0):
        expected = (2 + 2 * t) * np.array([[np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)]])
        np.testing.assert_allclose(slerp(a, b, jnp.array([t])), expected, atol=1e-6)


def test_between_equal_vectors_nothing_changes():
    a = jnp.asarray(noise("a", (3, 7)))
    np.testing.assert_allclose(slerp(a, a, jnp.array([0.0, 0.3, 1.0])), a, rtol=1e-5)


def test_pictures_are_moved_from_one_end_to_the_other(prior):
    at = lambda picture, **more: prior.look(["a", "b"], VaryOptions(picture=picture, **more))
    seen, alone = at(SEEN)
    np.testing.assert_array_equal(seen, alone)
    other = at(OTHER)[0]
    np.testing.assert_allclose(at(SEEN, towards=OTHER, mix=0.0)[1], seen, atol=1e-5)
    np.testing.assert_allclose(at(SEEN, towards=OTHER, mix=1.0)[1], other, atol=1e-5)
    before = prior.compiled()
    half = at(SEEN, towards=OTHER, mix=0.5)[1]
    assert prior.compiled() == before
    cosine = lambda a, b: (a * b).sum(1) / jnp.linalg.norm(a, axis=1) / jnp.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine(half, seen), cosine(half, other), atol=1e-5)


def test_a_mix_of_two_pictures_is_kandinskys(prior):
    mixed = prior.look(["", ""], VaryOptions(picture=SEEN, towards=OTHER, mix=0.3, straight=True))[1]
    for ours, theirs in ((mixed, "embed mixed"), (prior.away(mixed), "no embed mixed")):
        np.testing.assert_allclose(ours, kandinsky.ARRAYS[theirs], atol=1e-5)


@pytest.mark.heavy
def test_pictures_of_a_mix_agree(prior, monkeypatch):
    same = lambda keys, *rest: kandinsky.drawn(len(keys), *rest[-1])
    monkeypatch.setattr(program, "unit_noise", same)
    monkeypatch.setattr(table, "normal", same)
    pipe = Imagined(prior, DiffusionPipeline(kandinsky.decoder_bundle(), devices=jax.devices()[:1]))
    given = {"picture": SEEN, "towards": OTHER}
    told = {"steps": 5, "guidance": 2.0, "height": 16, "width": 16, "mix": 0.3, "straight": True}
    made = pipe("", key=jax.random.key(0), **given, **told)
    error = np.abs(made.astype(float) - 255 * (kandinsky.ARRAYS["mixed"] / 65535)).max()
    print(f"mixed: {error:.2f} / 255")
    assert error < 2  # 0.5 for the rounding to 8 bits, and what sums in another order become over the calls
    before = pipe.compiled()
    other = pipe("", key=jax.random.key(1), **given, **{**told, "mix": 0.9, "straight": False, "guidance": 3.0})
    assert pipe.compiled() == before
    assert not np.array_equal(made, other)


@pytest.mark.heavy
def test_a_kept_picture_begins_at_its_own_noise(prior):
    """Of a network that changes slowly, whose steps back are nearly its steps."""
    whole = kandinsky.decoder_bundle(scheduler="ddim")
    unet = whole.components["unet"]
    slow = {**unet.params, "conv_out": jax.tree.map(lambda x: 0.05 * x, unet.params["conv_out"])}
    parts = {**whole.components, "unet": dataclasses.replace(unet, params=slow)}
    free = {"scheduler": {**whole.schedulers["scheduler"], "clip_sample": False}}
    decoder = DiffusionPipeline(
        dataclasses.replace(whole, components=parts, schedulers=free), devices=jax.devices()[:1]
    )
    pipe, told = Imagined(prior, decoder), {"steps": 10, "guidance": 1.0, "height": 16, "width": 16}
    drawn = lambda keep: pipe("", key=jax.random.key(0), picture=SEEN, keep=keep, latents=True, **told)[1]
    movq = parts["movq"]
    encode = jax.jit(lambda params, x: AutoencoderVQ(movq.config).apply({"params": params}, x, method="encode"))
    own = encode(movq.params, jnp.asarray(SEEN / 127.5 - 1, jnp.float32))
    apart = [float(np.abs(drawn(keep) - np.asarray(own)).mean()) for keep in (True, False)]
    assert apart[0] < 0.1 * float(jnp.abs(own).mean())
    assert apart[0] < 0.1 * apart[1]
    with pytest.raises(ValueError, match="init_noise does not go with keep"):
        pipe("", key=jax.random.key(0), picture=SEEN, keep=True, init_noise=np.asarray(own), **told)


@pytest.mark.heavy
def test_words_move_a_picture_towards_the_prompt(prior):
    texts = ["two birds", "a red hat"]
    move = lambda mix: prior.look(texts, VaryOptions(picture=SEEN, described="one bird", mix=mix))
    seen, whole = move(1.0)
    np.testing.assert_allclose(move(0.0)[1], seen, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(whole, axis=1), jnp.linalg.norm(seen, axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mix": 1.5}, "mix is 1.5: expected a number from 0 to 1"),
        ({"picture": SEEN, "towards": OTHER, "described": "a"}, "towards and described were both given"),
        ({"described": "a"}, "described is about a picture: pass picture"),
        ({"keep": True}, "keep is about a picture: pass picture"),
        ({"picture": SEEN, "straight": True}, "straight is about the way between two pictures: pass towards"),
        ({"prior_strength": 0.5}, "prior_strength is about an embedding that is given: pass picture or blend"),
        ({"picture": SEEN, "prior_strength": 0.0}, "prior_strength is 0.0: expected a number above 0 and at most 1"),
        ({"picture": SEEN, "blend": (("a", 1.0),)}, "picture and blend were both given: put the picture into blend"),
        ({"blend": ("a",)}, r"blend\[0\] is 'a': expected a pair of a picture or a text, and its weight"),
        ({"blend": (("a", float("nan")),)}, r"the weight of blend\[0\] is nan: expected a finite number"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SeenOptions(**options).check()
