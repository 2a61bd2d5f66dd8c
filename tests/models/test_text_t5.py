"""T5's encoder against the reference library: outputs, names, config.json, and how its weights are sharded."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import weights

from jaxdiff.models.text_t5 import T5Encoder
from jaxdiff.parallel import MeshSpec, make_mesh, param_shardings
from jaxdiff.pretrained.rules import flatten, from_tensors, t5, to_tensors

FILE = np.load(pathlib.Path(__file__).parents[1] / "reference" / "t5.npz")
INDEX = json.loads(bytes(FILE["index"]))
IDS = jnp.array([[5, 9, 33, 2, 63, 17, 8, 41, 40, 3, 7, 1], [4, 6, 1] + [0] * 9])
LONG = jnp.asarray(np.arange(80)[None] * 7 % 63 + 1)
XXL = {
    "d_ff": 10240,
    "d_model": 4096,
    "feed_forward_proj": "gated-gelu",
    "num_heads": 64,
    "num_layers": 24,
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "tie_word_embeddings": False,
}


def read(case):
    net, tensors = t5.config(INDEX[case]["config"]), weights(INDEX[case]["shapes"])
    tensors["shared.weight"] = tensors["encoder.embed_tokens.weight"]  # the same parameter, by its last name
    return net, tensors, from_tensors(tensors, t5.shapes(net, {}), t5.rules(net, {}), lambda path, x: jnp.asarray(x))


def close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max() < tolerance


@pytest.mark.parametrize("case", [pytest.param(n, marks=[pytest.mark.heavy] if n == "near" else []) for n in INDEX])
def test_states_agree(case):
    net, _, params = read(case)
    run = jax.jit(T5Encoder(net).apply)
    close(run({"params": params}, IDS), FILE[case], 1e-4)
    close(run({"params": params}, LONG)[:, ::13], FILE[f"{case} long"], 1e-4)


def test_bfloat16_is_near_float32():
    net, _, params = read("t5 v1.1")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    run = jax.jit(T5Encoder(dataclasses.replace(net, dtype="bfloat16")).apply)
    error = np.asarray(run({"params": half}, IDS)) - FILE["t5 v1.1"]
    assert np.sqrt((error**2).mean() / (FILE["t5 v1.1"] ** 2).mean()) < 0.03  # numbers of 8 bits, through two blocks


@pytest.mark.parametrize("case", INDEX)
def test_names_go_both_ways(case):
    net, tensors, params = read(case)
    back = to_tensors(params, t5.rules(net, {}))
    assert back.keys() == tensors.keys() - {"encoder.embed_tokens.weight"}
    for name, tensor in back.items():
        np.testing.assert_array_equal(np.asarray(tensor), tensors[name])


def test_a_whole_t5_is_read_without_its_decoder():
    net, tensors, params = read("t5")
    del tensors["shared.weight"]  # transformers keeps one of the two that are the same
    whole = {**tensors, "decoder.block.0.layer.0.layer_norm.weight": np.ones(32), "lm_head.weight": np.ones((64, 32))}
    again = from_tensors(whole, t5.shapes(net, {}), t5.rules(net, {}))
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_published_size_and_how_it_is_split():
    net = t5.config(XXL)
    shapes = t5.shapes(net, XXL)
    assert sum(int(np.prod(leaf.shape)) for leaf in flatten(shapes).values()) == 4_762_310_656
    mesh = make_mesh(MeshSpec(data=1, fsdp=4, tensor=2), jax.devices())
    places = flatten(param_shardings(shapes, mesh))
    here = sum(int(np.prod(places[path].shard_shape(leaf.shape))) for path, leaf in flatten(shapes).items())
    assert here < 4_762_310_656 / 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj='gated-silu' is not supported"),
        ({"pad_token_id": 3}, "pad_token_id=3 is not supported"),
        ({"some_new_thing": 1}, "some_new_thing=1 is a field unknown here"),
    ],
)
def test_what_is_not_supported_is_named(change, words):
    with pytest.raises(ValueError, match="T5EncoderModel") as error:
        t5.config({**XXL, **change})
    assert words in str(error.value)
