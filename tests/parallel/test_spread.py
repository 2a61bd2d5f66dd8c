"""A function over examples gives the same on one device and on eight, for any number of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.parallel import MeshSpec, param_shardings
from jaxdiff.parallel.spread import Spread, jit_forward
from jaxdiff.sampling import Table

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)
ONE = {"devices": jax.devices()[:1]}
MANY = [
    {},
    {"spec": MeshSpec(data=2, fsdp=4)},
    {"spec": MeshSpec(data=2, fsdp=2, tensor=2)},
    {"spec": "pmap"},
    {"spec": "pmap", "devices": jax.devices()[:3]},
]


def function(whole, batch):
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(batch["keys"])
    return {"y": batch["x"] @ whole + noise, "double": 2 * batch["x"]}


def examples(count):
    x = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    return {"x": x, "keys": jax.random.split(jax.random.key(0), count)}


@pytest.mark.parametrize("count", [1, 5, 8, 11])
@pytest.mark.parametrize("options", [ONE, *MANY], ids=str)
def test_every_way_to_share_gives_what_the_function_gives(options, count):
    batch = examples(count)
    noise = np.stack([jax.random.normal(key, (3,)) for key in jax.random.split(jax.random.key(0), count)])
    out = Spread(function, **options)(WEIGHTS, batch)
    assert isinstance(out["y"], np.ndarray)
    assert out["double"].shape == (count, 4)
    np.testing.assert_array_equal(out["double"], 2 * batch["x"])
    np.testing.assert_allclose(out["y"], batch["x"] @ WEIGHTS + noise, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", [MeshSpec(), "pmap"], ids=str)
def test_batches_that_fill_up_to_the_same_size_share_a_program(spec):
    spread = Spread(function, spec)
    assert spread.compiled() == 0
    for count in (5, 8, 3):
        spread(count * WEIGHTS, examples(count))
    assert spread.compiled() == 1
    spread(WEIGHTS, examples(9))
    assert spread.compiled() == 2


def test_a_multiple_lets_all_smaller_batches_share_a_program():
    spread = Spread(function, "pmap", multiple=32)
    for count in (5, 17, 32):
        assert spread(WEIGHTS, examples(count))["y"].shape == (count, 3)
    assert spread.compiled() == 1


def test_weights_that_live_on_other_devices_may_be_given():
    """A preview gets them as training has split them."""
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    weights = jnp.pad(jnp.asarray(WEIGHTS), ((0, 4), (0, 0)))
    split = jax.device_put(weights, jax.NamedSharding(mesh, jax.P("fsdp")))
    whole = lambda w, x: x @ w[:4]
    for spec in (MeshSpec(), "pmap"):
        np.testing.assert_allclose(Spread(whole, spec)(split, examples(5)["x"]), examples(5)["x"] @ WEIGHTS, rtol=1e-5)
    alone = Spread(whole, devices=jax.devices()[:1])
    np.testing.assert_allclose(alone(split, examples(5)["x"]), examples(5)["x"] @ WEIGHTS, rtol=1e-5)


def test_weights_split_over_the_mesh_stay_split():
    spec = MeshSpec(data=2, fsdp=2, tensor=2)
    weights = {"fc1": {"kernel": np.random.default_rng(1).normal(size=(4, 8192)).astype(np.float32)}}
    spread = Spread(lambda w, x: x @ w["fc1"]["kernel"], spec)
    seen = []

    def function(w, x):
        jax.debug.inspect_array_sharding(w["fc1"]["kernel"], callback=seen.append)
        return x @ w["fc1"]["kernel"]

    spread = Spread(function, spec)
    split = jax.device_put(weights, param_shardings({"mlp": weights}, spread.mesh)["mlp"])
    x = examples(5)["x"]
    np.testing.assert_allclose(spread(split, x), x @ weights["fc1"]["kernel"], rtol=1e-5, atol=1e-5)
    assert seen == [jax.NamedSharding(spread.mesh, jax.P("fsdp", "tensor"))]


@pytest.mark.parametrize("options", [ONE, {"spec": MeshSpec(data=2, fsdp=2, tensor=2)}], ids=str)
def test_a_program_that_was_kept_is_run_without_tracing(options, tmp_path):
    """Typed keys and registered classes are among the arguments, as in a pipeline."""
    weights = Table(*(np.float32(n) * WEIGHTS for n in range(1, 5)), {"guidance": np.ones(3, np.float32)})

    def shown(table, batch):
        noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(batch["keys"])
        return batch["x"] @ table.b + noise + table.aux["guidance"][None]

    first = Spread(shown, programs=tmp_path / "kept", identity="a", **options)
    expected = first(weights, examples(5))
    first(weights, examples(3))
    assert len(list((tmp_path / "kept").iterdir())) == len({5 + -5 % first.ways, 3 + -3 % first.ways})

    def fail(whole, batch):
        raise AssertionError("traced")

    second = Spread(fail, programs=tmp_path / "kept", identity="a", **options)
    np.testing.assert_array_equal(second(weights, examples(5)), expected)
    assert second.compiled() == 0
    with pytest.raises(AssertionError, match="traced"):
        Spread(fail, programs=tmp_path / "kept", identity="another model", **options)(weights, examples(5))
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="is not a program that can be read"):
        Spread(fail, programs=tmp_path / "kept", identity="a", **options)(weights, examples(5))


def test_pmap_keeps_no_programs(tmp_path):
    with pytest.raises(ValueError, match="use the mesh strategy"):
        Spread(function, "pmap", programs=tmp_path)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Spread(function)(WEIGHTS, {"x": np.zeros((0, 4), np.float32), "keys": jax.random.split(jax.random.key(0), 0)})


def test_a_mesh_that_does_not_fit_is_refused_before_anything_compiles():
    with pytest.raises(ValueError, match="8: choose sizes"):
        Spread(function, MeshSpec(data=3))


def test_programs_without_a_backward_pass_are_in_the_order_that_needs_little_memory():
    x, wide, kernels = jnp.ones((64, 64)), jnp.ones((64, 2048)), [jnp.ones((64, 64))] * 8

    def products(x, wide, kernels):
        for kernel in kernels:
            x = x @ (kernel @ wide) @ wide.T  # the kernel's product could be made at any time before
        return x

    memory = lambda jit: jit(products).lower(x, wide, kernels).compile().memory_analysis().temp_size_in_bytes
    assert memory(lambda function: jit_forward(function, "cpu")) < 0.5 * memory(jax.jit)
