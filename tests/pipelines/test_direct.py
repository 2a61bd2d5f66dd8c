"""A pipeline of one function: prompts, options, one program for all numbers, and what evaluation may ask of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.evaluation.config import EvaluateConfig
from jaxdiff.evaluation.likelihood import own_bits
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.evaluation.run import _check_pipeline
from jaxdiff.pipelines.direct import DirectPipeline, LikelihoodPipeline, Tempered
from jaxdiff.pipelines.pipeline import HasLikelihood, Pipeline


def draw(weights, numbers, keys, label):
    """A picture whose channels are its class, the temperature times 10, and noise."""
    noise = jax.vmap(lambda key: jax.random.randint(key, (), 0, 256))(keys)
    known = jnp.zeros(noise.shape, jnp.int32) if label is None else label
    values = jnp.stack([known, (10 * numbers.get("temperature", 0) + 0 * noise).astype(jnp.int32), noise], -1)
    return jnp.broadcast_to(values[:, None, None], (len(noise), 2, 2, 3)).astype(jnp.uint8)


def bits(weights, image, keys, label):
    return image[:, 0, 0, 0] * weights + (0 if label is None else label)


CLASSES = DirectPipeline(1.0, draw, size=2, labels=("cat", "dog"), options=Tempered)
PLAIN = LikelihoodPipeline(2.0, draw, bits, "exact", size=2)
TOLD = LikelihoodPipeline(2.0, draw, bits, "exact", size=2, labels=("cat", "dog"))


def test_prompts_are_classes_and_numbers_compile_nothing():
    key = jax.random.key(0)
    first = CLASSES(["dog", "cat"], key=key)
    assert first[:, 0, 0, 0].tolist() == [1, 0]
    assert first[0, 0, 0, 2] != first[1, 0, 0, 2]
    again = CLASSES(["dog", "cat"], key=jax.random.key(0), temperature=0.5)
    np.testing.assert_array_equal(again[..., 1], 5)
    np.testing.assert_array_equal(again[..., 2], first[..., 2])
    assert CLASSES._draw.compiled() == 1
    free = CLASSES([""] * 16, key=jax.random.key(1))[:, 0, 0, 0]
    assert {*free.tolist()} == {0, 1}
    assert isinstance(CLASSES, Pipeline)
    assert not isinstance(CLASSES, HasLikelihood)


def test_a_likelihood_is_asked_for_picture_by_picture():
    """In batches of which the last is filled up; with classes, given them."""
    assert isinstance(PLAIN, HasLikelihood)
    pictures = Pictures("made", (2, 2), 11, lambda i: np.full((2, 2, 3), i, np.uint8))
    np.testing.assert_array_equal(own_bits(PLAIN, pictures, [""] * 11, batch_size=1), 2.0 * np.arange(11))
    told = own_bits(TOLD, pictures, ["dog"] * 11, batch_size=1)
    np.testing.assert_array_equal(told, 2.0 * np.arange(11) + 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: CLASSES(["cow"], key=key), "'cow' is no class of this model: expected one of cat, dog"),
        (lambda key: PLAIN(["cat"], key=key), "expected no prompt, since this model reads none"),
        (lambda key: CLASSES(["cat"], key=key, temperature=0.0), "temperature is 0.0: expected a number above 0"),
        (lambda key: CLASSES(["cat"], key=key, temperature=float("nan")), "temperature is nan"),
        (lambda key: CLASSES(["cat"], key=key, steps=3), "no option 'steps': expected temperature"),
        (lambda key: PLAIN([""], key=key, temperature=1.0), "no option 'temperature': expected none"),
        (lambda key: TOLD.bits_per_dim(np.zeros((1, 2, 2, 3), np.uint8), [""], key[None]), "a picture has none"),
        (lambda key: PLAIN.bits_per_dim(np.zeros((1, 4, 2, 3), np.uint8), [""], key[None]), "are 2x4, the model 2x2"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))


@pytest.mark.parametrize(
    ("pipe", "fields", "message"),
    [
        (CLASSES, {"metrics": ("bits",)}, "bits: this model has no such likelihood: it gives pictures and no density"),
        (CLASSES, {"metrics": ("bound", "kid")}, "bound: this model has no such likelihood"),
        (PLAIN, {"metrics": ("ode",)}, "ode: this model has no such likelihood: ask for bits"),
        (PLAIN, {"metrics": ("kid",), "sweep": "ddim"}, "this model has none: leave it out"),
    ],
)
def test_evaluation_asks_for_what_a_model_has(pipe, fields, message):
    with pytest.raises(ValueError, match=message):
        _check_pipeline(EvaluateConfig(model="run", **fields), pipe)
    _check_pipeline(EvaluateConfig(model="run", metrics=("kid",)), pipe)
