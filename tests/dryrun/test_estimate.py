"""What lives at once in small programs whose peak is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.dryrun import collectives, shardings
from jaxdiff.dryrun.estimate import EXAMPLES, Sizes, held, live
from jaxdiff.metrics import chips
from jaxdiff.parallel.mesh import AXES

W = jax.ShapeDtypeStruct((16, 16), jnp.float32)
X = jax.ShapeDtypeStruct((4 * EXAMPLES, 16), jnp.float32)
ROW = 16 * 4


def peak(function, *arguments, ways=4):
    return live(jax.make_jaxpr(function)(*arguments), Sizes(ways))


def test_a_product_keeps_its_result_and_what_is_elementwise_nothing():
    found = peak(lambda x, w: jnp.tanh(x @ w) * 2, X, W)
    assert found.peak(3) == 3 * ROW
    assert peak(lambda x, w: jnp.tanh(x) @ w, X, W).peak(3) == 2 * 3 * ROW, "the argument of a product is stored"


def test_what_is_no_longer_read_is_free():
    def chain(x, w):
        for _ in range(5):
            x = x @ w
        return x

    assert peak(chain, X, W).peak(1) == 2 * ROW
    assert peak(jax.jit(chain), X, W).peak(1) == 2 * ROW, "a call is part of its caller"
    kept = peak(lambda x, w: sum(x @ (w * i) for i in range(5)), X, W)
    assert kept.peak(1) - kept.peak(0) == 5 * ROW, "sums are fused, so that all terms live to the end"


def test_the_gradient_keeps_what_the_backward_pass_reads():
    loss = lambda w, x: jnp.sum(jnp.sin(jnp.sin(x @ w) @ w))
    assert peak(jax.grad(loss), W, X).peak(1) >= 2 * ROW
    again = peak(jax.grad(jax.checkpoint(loss)), W, X)
    assert again.peak(1) >= 2 * ROW


def test_the_inside_of_a_loop_counts():
    def body(x, _):
        return x @ jnp.ones((16, 64)) @ jnp.ones((64, 16)), None

    found = peak(lambda x: jax.lax.scan(body, x, length=3)[0], X)
    assert found.peak(1) - found.peak(0) >= 4 * ROW + ROW


def test_tiles_are_padded_where_the_least_is_lost():
    """Of a TPU's 128 lanes: the examples lie there where they are many, else the channels; a kernel wants its own."""
    picture = jax.ShapeDtypeStruct((4 * EXAMPLES, 32, 32, 64), jnp.float32)
    size = 32 * 32 * 64 * 4
    assert Sizes(4)(picture).each == size
    assert Sizes(4, tiled=512)(picture).each == size
    assert Sizes(4, tiled=64)(picture).each == 2 * size
    three = jax.ShapeDtypeStruct((4 * EXAMPLES, 32, 32, 3), jnp.float32)
    assert Sizes(4, tiled=512)(three).each == 32 * 32 * 3 * 4, "rows of the picture lie along the 8 of a tile"
    heads = jax.ShapeDtypeStruct((4 * EXAMPLES, 2, 1024, 32), jnp.bfloat16)
    assert Sizes(4, tiled=512)(heads, kernel=True).each == 4 * 2 * 1024 * 32 * 2


def mesh(*sizes):
    device = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, abstract_device=device)


def leaf(shape, mesh, *spec):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))


def test_gradients_are_split_as_their_parameters():
    params = {"w": leaf((16, 16), mesh(2, 2, 1), "fsdp")}
    assert held(params) == {(16, 16): 128}
    gradient = jax.make_jaxpr(jax.grad(lambda w, x: jnp.sum(x @ w)))(W, X)
    assert live(gradient, Sizes(4, held(params))).stored.fixed == 128 * 4 + 4, "and the loss"


@pytest.mark.parametrize(
    ("sizes", "spec", "expected"),
    [
        ((4, 1, 1), (), {"all-reduce": 4096}),
        ((1, 4, 1), ("fsdp",), {"all-gather": 8192, "reduce-scatter": 4096}),
        ((2, 4, 1), ("fsdp",), {"all-gather": 8192, "reduce-scatter": 4096, "all-reduce": 1024}),
        ((2, 4, 1), (), {"all-reduce": 4096}),
        ((2, 2, 2), ("tensor",), {"all-reduce": 2048}),
        ((1, 1, 1), (), {}),
    ],
)
def test_collectives_of_a_step_follow_from_where_a_weight_lies(sizes, spec, expected):
    assert collectives.estimate([leaf((32, 32), mesh(*sizes), *spec)]) == expected


def test_collectives_of_a_program_are_read():
    hlo = """
  %a = f32[8,4]{1,0} all-gather(f32[2,4]{1,0} %x), dimensions={0}
  %b = (f32[2]{0}, bf16[8]{0}) all-reduce(%c, %d), to_apply=%add
  %e = (f32[2]{0}, f32[8]{0}) all-gather-start(f32[2]{0} %f)
  %g = f32[8]{0} all-gather-done(%e)
"""
    assert collectives.read(hlo) == {"all-gather": 128 + 32, "all-reduce": 8 + 16}


def test_each_weight_that_is_whole_has_a_reason():
    m = mesh(2, 2, 1)
    params = {"small": leaf((3,), m), "odd": leaf((129, 129), m), "split": leaf((256, 256), m, None, "fsdp")}
    how = {group.how: group for group in shardings.groups(params)}
    assert how["split over fsdp"].held == how["split over fsdp"].total // 2
    assert any("fewer than 16384" in name for name in how)
    assert any("no dimension divides" in name for name in how)


def test_topologies_that_exist_are_read_and_others_listed():
    assert chips.parse("v5e:16x16").devices == 256
    assert chips.parse("v5p:4x4x4", 2).devices == 128
    assert chips.parse("v4:2x2x1").devices == 8, "two cores a chip"
    for wrong in ("v5e:3x2", "v5e:2x2x1", "v5p:2x2", "v5p:3x4x4", "v9:2x2", "v5e", "", "v5p:4x4x0", "v5p:-4x4x4"):
        with pytest.raises(ValueError, match=r"there is no topology .*2x4"):
            chips.parse(wrong)
    with pytest.raises(ValueError, match="slices is 0"):
        chips.parse("v5e:2x2", 0)
