"""Which examples lose their condition, and that an example's loss is its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data.tokenizer import BytePair
from jaxdiff.diffusion import loss
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture
from jaxdiff.training import Known

MODEL = picture.Config(
    process=picture.ProcessConfig(prediction="x0"),
    drop=0.5,
    net=UNetConfig(
        channels=(8,), layers=1, attention=("cross",), mid_attention="none", heads=(2,), depth=(1,), groups=4,
        pooled=True, dropout=0.2,
    ),
    text=TextConfig(vocabulary=20, length=4, width=8, layers=1, heads=2),
)  # fmt: skip
ASSETS = picture.Assets(4, BytePair(()))
EMPTY = ASSETS.vocabulary.encode("", 4)
NOTHING = Known({}, {}, {}, 0)


def keys(order=slice(None)):
    """New key arrays of the same keys: a key may be used once."""
    return jax.random.wrap_key_data(jax.random.key_data(jax.random.split(jax.random.key(4), 8))[order])


def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8),
        "tokens": rng.integers(1, 20, (8, 4)).astype(np.int32),
    }


@pytest.fixture(scope="module")
def value():
    """(batch, keys, drop) -> loss, under weights that are nowhere zero."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(MODEL.task(ASSETS).init, jax.random.key(0), {}, batch()).params
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, jnp.float32), shapes)
    models = {drop: dataclasses.replace(MODEL, drop=drop) for drop in (0.0, 0.5)}
    programs = {drop: jax.jit(model.task(ASSETS).loss) for drop, model in models.items()}
    return lambda batch, keys, drop=0.5: float(programs[drop](params, NOTHING, batch, keys)[0])


def test_the_dropped_examples_and_no_others_get_the_empty_text(value):
    data = batch()
    gone = np.asarray(loss.dropped(keys(), 0.5))
    assert 0 < gone.sum() < 8
    by_hand = {**data, "tokens": np.where(gone[:, None], EMPTY, data["tokens"])}
    np.testing.assert_allclose(value(data, keys()), value(by_hand, keys(), drop=0.0), rtol=1e-6)
    others = {**data, "tokens": np.where(gone[:, None], data["tokens"], EMPTY)}
    assert abs(value(data, keys()) / value(others, keys(), drop=0.0) - 1) > 1e-4


def test_what_a_dropped_text_said_changes_nothing(value):
    data = batch()
    gone = np.asarray(loss.dropped(keys(), 0.5))
    other = {**data, "tokens": np.where(gone[:, None], 21 - data["tokens"], data["tokens"])}
    assert value(data, keys()) == value(other, keys())


def test_noise_time_dropout_and_dropping_go_with_the_example(value):
    """Whatever is drawn comes from the example's own key, so that the order of a batch does not matter."""
    data, order = batch(), np.array([3, 0, 7, 6, 1, 5, 2, 4])
    mixed = {name: array[order] for name, array in data.items()}
    np.testing.assert_allclose(value(data, keys()), value(mixed, keys(order)), rtol=1e-5)
    assert abs(value(data, keys()) / value(mixed, keys()) - 1) > 1e-4
