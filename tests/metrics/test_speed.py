"""Counting of work against counts by hand, and the arithmetic of timing on a clock that is made up."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.metrics import speed
from jaxdiff.models.unet import UNet, cifar10
from jaxdiff.nn.conv import conv, direct_convolutions

B, SIDE, IN, OUT = 2, 8, 3, 5


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def work(function, *args):
    return speed.work(jax.make_jaxpr(function)(*args))


def convolution(stride=1, padding="SAME", groups=1):
    return lambda x, kernel: jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def with_gradients(function):
    def both(*args):
        y, back = jax.vjp(function, *args)
        return y, back(jnp.ones_like(y))

    return both


X, KERNEL = shape(B, SIDE, SIDE, IN), shape(3, 3, IN, OUT)
CONV = 2 * B * SIDE**2 * 9 * IN * OUT


@pytest.mark.parametrize(
    ("function", "args", "flops"),
    [
        (jnp.matmul, (shape(7, 4, 5), shape(7, 5, 6)), 2 * 7 * 4 * 5 * 6),
        (lambda a, b: jnp.einsum("ijk,kl->ijl", a, b), (shape(3, 4, 5), shape(5, 6)), 2 * 12 * 5 * 6),
        (with_gradients(jnp.matmul), (shape(4, 5), shape(5, 6)), 3 * 2 * 4 * 5 * 6),
        (convolution(), (X, KERNEL), CONV),
        (convolution(2), (X, KERNEL), CONV / 4),
        (convolution(groups=IN), (X, shape(3, 3, 1, 2 * IN)), 2 * B * SIDE**2 * 9 * 2 * IN),
        # a gradient costs what the convolution costs, strides and unequal padding or not
        (with_gradients(convolution()), (X, KERNEL), 3 * CONV),
        (with_gradients(convolution(2, ((0, 1), (0, 1)))), (X, KERNEL), 3 * CONV / 4),
        (with_gradients(convolution(2, ((1, 1), (1, 1)))), (X, KERNEL), 3 * CONV / 4),
    ],
)
def test_work_is_counted_as_by_hand(function, args, flops):
    assert work(function, *args) == speed.Work(float(flops))
    assert work(jax.jit(function), *args) == speed.Work(float(flops))


def test_loops_count_their_turns_and_a_choice_its_dearest_branch():
    a, one = shape(4, 4), 2 * 4**3
    loop = lambda a: jax.lax.scan(lambda c, _: (c @ a, None), a, None, length=7)[0]
    assert work(loop, a).flops == 7 * one
    assert work(jax.checkpoint(loop), a).flops == 7 * one
    mapped = lambda a: jax.lax.map(lambda row: jax.lax.map(lambda x: x @ a, row), jnp.ones((2, 3, 4, 4)))
    assert work(mapped, a).flops == 6 * one
    choice = lambda a: jax.lax.cond(a[0, 0] > 0, lambda: a @ a @ a, lambda: a @ a)
    assert work(choice, a).flops == 2 * one


def test_what_cannot_be_counted_is_named():
    until = lambda a: jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ a, a)
    assert work(until, shape(4, 4)).uncounted == ("while",)


def test_a_function_mapped_over_devices_counts_on_all_of_them():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    part = jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(jax.P("x"), jax.P()), out_specs=jax.P("x"))
    assert work(part, shape(16, 4), shape(4, 5)).flops == 2 * 16 * 4 * 5


def test_the_cifar_network_has_its_known_work():
    # 12.44 GFLOP a picture by another library's counter
    net = UNet(cifar10())
    x, t = shape(16, 32, 32, 3), shape(16)
    params = jax.eval_shape(net.init, jax.random.key(0), x, t)
    executed = work(net.apply, params, x, t)
    with direct_convolutions(True):
        asked = work(net.apply, params, x, t)  # the same function: it has been traced before
    assert asked.flops == pytest.approx(16 * 12.44e9, rel=1e-3)
    assert executed.flops < 0.6 * asked.flops


WINOGRAD = (shape(8, 16, 16, 128), shape(3, 3, 128, 160)), 2 * (8 * 16 * 16) * 9 * 128 * 160


@pytest.mark.parametrize(
    ("function", "times"),
    [
        (conv, 1),
        (with_gradients(conv), 3),
        (jax.checkpoint(conv), 1),
        (lambda x, kernel: jax.lax.map(lambda _: conv(x, kernel), jnp.arange(4)), 4),
    ],
)
def test_a_convolution_of_winograds_form_is_also_counted_as_the_architecture_has_it(function, times):
    args, flops = WINOGRAD
    program = jax.jit(function)
    before = speed.work(program.trace(*args).jaxpr)
    with direct_convolutions(True):
        assert speed.work(program.trace(*args).jaxpr) == speed.Work(float(times * flops))
    assert speed.work(program.trace(*args).jaxpr) == before
    assert before.flops < 0.6 * times * flops


def test_im2col_has_the_products_of_the_convolution():
    args = shape(2, 8, 8, 512), shape(3, 3, 512, 128)
    assert work(conv, *args).flops == 2 * (2 * 8 * 8) * 9 * 512 * 128


def test_sides_take_turns_in_both_orders(monkeypatch):
    now, order = [0.0], []

    def side(name, seconds):
        def run(i):
            order.append((name, i))
            now[0] += seconds * (1 + i)  # a neighbour slows the machine more and more

        return run

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    told = list[int]()
    times = speed.alternate({"ours": side("ours", 1.0), "theirs": side("theirs", 2.0)}, 3, told.append)
    turns = [("ours", 0), ("theirs", 0), ("theirs", 1), ("ours", 1), ("ours", 2), ("theirs", 2)]
    assert order == [call for call in turns for _ in range(2)]
    np.testing.assert_allclose(times["theirs"], [2, 4, 6])
    assert told == [0, 1, 2]
    ratios = speed.ratios(times["ours"], times["theirs"])
    assert ratios["all"].median == ratios["all"].upper == 0.5
    assert (ratios["first"].count, ratios["second"].count) == (2, 1)
    with pytest.raises(ValueError, match="rounds is 0"):
        speed.alternate({}, 0)


def test_a_summary_is_the_median_with_its_quartiles():
    assert speed.summary([5.0, 1.0, 2.0, 4.0, 3.0]) == speed.Summary(3.0, 2.0, 4.0, 1.0, 5)


def test_compilations_are_counted_once_for_each_shape():
    function = jax.jit(lambda x: jnp.sin(x) * 3)
    ones, twos = jnp.ones(3), jnp.ones(2)
    with speed.compilations() as first:
        function(ones)
    with speed.compilations() as same:
        function(ones)
    with speed.compilations() as other:
        function(twos)
    assert (first.count, same.count, other.count) == (1, 0, 1)
    assert first.seconds > 0


def test_cost_of_a_compiled_program():
    compiled = jax.jit(jnp.matmul).lower(shape(64, 32), shape(32, 16)).compile()
    cost = speed.cost(compiled)
    assert cost.flops == 2 * 64 * 32 * 16
    assert cost.bytes == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert cost.memory >= cost.bytes


def test_peak_memory_sees_what_was_held_and_starts_anew():
    speed.reset_memory()
    before, source = speed.peak_memory()
    held = np.ones(2**25)
    assert speed.peak_memory()[0] - before > 0.9 * held.nbytes
    del held
    speed.reset_memory()
    assert speed.peak_memory()[0] < before + 2**26
    assert source == "process"


def test_the_peak_multiplies_other_matrices_each_round():
    side, flops = speed.product(size=16)
    assert flops == 2 * 16**3
    assert not np.array_equal(side(0), side(1))


def test_the_machine_is_told():
    told = speed.machine()
    assert told["devices"] == 8
    assert told["jax"] == jax.__version__
    assert told["cores"] >= 1
