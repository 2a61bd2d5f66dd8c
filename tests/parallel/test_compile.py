import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.parallel import MeshSpec, compile

EIGHT = [MeshSpec(), MeshSpec(data=1, fsdp=8), MeshSpec(data=2, fsdp=2, tensor=2), "pmap"]
WIDTH = 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    params: Any


def init(key, loaded, batch):
    return State({"w": jax.random.normal(key, (WIDTH, WIDTH))})


def make_step(reduce):
    def step(state, batch, keys):
        """The state less the mean of what the examples say; the metrics show their noise."""
        noise = jax.vmap(jax.random.normal)(keys)
        mean = reduce(jnp.mean(batch["x"] + noise))
        return State(jax.tree.map(lambda w: w - mean, state.params)), {"mean": mean}

    return step


@pytest.mark.parametrize("spec", EIGHT, ids=str)
def test_every_strategy_draws_the_same_noise_and_averages_over_all_examples(spec, key):
    program = compile(make_step, init, {}, {}, spec)
    batch = {"x": np.arange(16, dtype=np.float32)}
    root = jax.random.key(1)
    _, metrics = program.step(program.init(key), program.put(batch), program.keys(root, 7, 16))
    noise = jax.vmap(jax.random.normal)(jax.random.split(jax.random.fold_in(root, 7), 16))
    np.testing.assert_allclose(metrics["mean"], np.mean(batch["x"] + noise), rtol=1e-6)
    assert metrics["mean"].sharding.is_fully_replicated


@pytest.mark.parametrize("spec", EIGHT, ids=str)
def test_the_state_is_donated_and_a_second_step_compiles_nothing(spec, key):
    program = compile(make_step, init, {}, {}, spec)
    first = program.init(key)
    batch, root = program.put({"x": np.ones(16, np.float32)}), jax.random.key(1)
    second, _ = program.step(first, batch, program.keys(root, 0, 16))
    assert first.params["w"].is_deleted()
    assert jax.tree.map(lambda x: x.sharding, second) == program.shardings
    events = []

    def listen(event, seconds, **_):
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    third, _ = program.step(second, batch, program.keys(root, 1, 16))
    jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in events if "compile" in event]
    assert jax.tree.map(lambda x: x.sharding, third) == program.shardings


def test_fsdp_holds_an_eighth_on_each_device_even_while_it_is_made(key):
    program = compile(make_step, init, {}, {}, MeshSpec(data=1, fsdp=8))
    weight = program.init(key).params["w"]
    full = WIDTH * WIDTH * 4
    assert {shard.data.nbytes for shard in weight.addressable_shards} == {full // 8}
    memory = jax.jit(init, out_shardings=program.shardings).lower(key, {}, {}).compile().memory_analysis()
    assert memory.output_size_in_bytes <= full // 8
    assert memory.temp_size_in_bytes < full // 2


def test_init_draws_the_same_weights_however_they_are_split():
    whole, split = (
        compile(make_step, init, {}, {}, spec).init(jax.random.key(0)).params["w"]
        for spec in ("pmap", MeshSpec(data=1, fsdp=8))
    )
    np.testing.assert_array_equal(whole, split)


@pytest.mark.parametrize("spec", EIGHT, ids=str)
def test_a_batch_that_does_not_split_is_refused_before_compiling(spec):
    program = compile(make_step, init, {}, {}, spec)
    ways = 4 if isinstance(spec, MeshSpec) and spec.tensor == 2 else 8
    message = f"a batch of 10 does not split over {ways} devices: choose a batch size that is a multiple of {ways}"
    with pytest.raises(ValueError, match=message):
        program.put({"x": np.ones(10)})
    with pytest.raises(ValueError, match=message):
        program.keys(jax.random.key(0), 0, 10)


def test_a_batch_whose_arrays_differ_in_length_is_refused():
    program = compile(make_step, init, {}, {}, MeshSpec())
    with pytest.raises(ValueError, match=re.escape("given are {'caption': (8,), 'x': (16,)}")):
        program.put({"x": np.ones(16), "caption": np.ones((8, 3))})


@pytest.mark.parametrize(
    ("root", "given"),
    [
        (jax.random.key(0, impl="rbg"), "a key of implementation rbg"),
        (jax.random.PRNGKey(0), "no typed key"),
    ],
)
def test_keys_other_than_threefry_are_refused(root, given):
    with pytest.raises(ValueError, match=given):
        compile(make_step, init, {}, {}, MeshSpec()).keys(root, 0, 16)
