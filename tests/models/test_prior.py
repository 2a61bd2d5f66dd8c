"""unCLIP's prior and text projection against the reference library: outputs, names, config.json."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights

from jaxdiff.models.prior import Prior, TextProjection, denormalised
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.rules import from_tensors, to_tensors

INDEX, ARRAYS = load(pathlib.Path(__file__).parents[1] / "reference" / "prior.npz")
MASK = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)


def read(case):
    entry = INDEX[case]
    one, json = family(entry["class"]), entry["config"]
    net, tensors = one.config(json), weights(entry["shapes"])
    params = from_tensors(tensors, one.shapes(net, json), one.rules(net, json), lambda path, x: jnp.asarray(x))
    return net, tensors, params, one.rules(net, json)


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max() < 1e-4


@pytest.mark.parametrize("case", ["karlo", "other"])
def test_estimate_agrees(case):
    net, _, params, _ = read(case)
    x, vector, states = (jnp.asarray(noise(*a)) for a in (("x", (2, 12)), ("v", (2, net.vector)), ("s", (2, 5, 12))))
    y = jax.jit(Prior(net).apply)({"params": params}, x, jnp.array([17.0, 801.0]), vector, states, MASK)
    close(y, ARRAYS[f"{case}/y"])
    close(denormalised(params, y), ARRAYS[f"{case}/embed"])


def test_projection_agrees():
    net, _, params, _ = read("projection")
    embed, vector, states = (jnp.asarray(noise(*a)) for a in (("e", (2, 12)), ("v", (2, 12)), ("s", (2, 5, 12))))
    context, time = jax.jit(TextProjection(net).apply)({"params": params}, embed, vector, states)
    close(context, ARRAYS["projection/context"])
    close(time, ARRAYS["projection/time"])


@pytest.mark.parametrize("case", INDEX)
def test_names_go_both_ways(case):
    _, tensors, params, rules = read(case)
    back = to_tensors(params, rules)
    assert back.keys() == tensors.keys()
    for name, tensor in back.items():
        np.testing.assert_array_equal(np.asarray(tensor), tensors[name])


@pytest.mark.parametrize(
    ("case", "change", "words"),
    [
        ("karlo", {"additional_embeddings": 3}, "supported are 'linear' with 4"),
        ("karlo", {"encoder_hid_proj_type": None}, "supported are 'linear' with 4"),
        ("karlo", {"time_embed_dim": 32}, "time_embed_dim=32 is not supported, only 16"),
        ("karlo", {"clip_embed_dim": 32}, "clip_embed_dim=32 is not supported"),
        ("karlo", {"added_emb_type": "other"}, "added_emb_type='other' is not supported"),
        ("projection", {"time_embed_dim": None}, "time_embed_dim"),
    ],
)
def test_what_is_not_supported_is_named(case, change, words):
    entry = INDEX[case]
    with pytest.raises(ValueError, match=entry["class"]) as error:
        family(entry["class"]).config({**entry["config"], **change})
    assert words in str(error.value)


def test_states_that_do_not_belong_are_refused():
    net, _, params, _ = read("karlo")
    with pytest.raises(ValueError, match="the text's states are missing"):
        Prior(net).apply({"params": params}, jnp.zeros((1, 12)), jnp.zeros(1), jnp.zeros((1, 12)))
