import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_task import TASK, Data, make_task

from jaxdiff.pretrained import components
from jaxdiff.pretrained.presets import KINDS, PRESETS
from jaxdiff.training import OptimizerConfig, make_ema, make_init_state, make_optimizer, make_train_step
from jaxdiff.training.optimizer import decayed, learning_rate


def test_the_average_forgets_its_start_and_then_remembers_as_told():
    ema = make_ema(0.9)
    zero, one, average = {"w": jnp.zeros(())}, {"w": jnp.ones(())}, {"w": jnp.zeros(())}
    weight = 1.0  # of the first value, by hand
    for t in range(200):
        average = ema(average, one, jnp.asarray(t))
        weight *= min(0.9, (1 + t) / (10 + t))
    assert float(average["w"]) == pytest.approx(1 - weight, abs=1e-6)
    assert float(ema(zero, one, jnp.asarray(0))["w"]) == pytest.approx(0.9)
    assert float(ema(zero, one, jnp.asarray(1000))["w"]) == pytest.approx(0.1)
    assert float(make_ema(0.0)(zero, one, jnp.asarray(1000))["w"]) == 1


@pytest.mark.parametrize("decay", [1.0, -0.1, 1.5])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"not in \[0, 1\)"):
        make_ema(decay)


def test_the_learning_rate_rises_and_falls():
    config = OptimizerConfig(lr=2e-3, warmup=10, end_lr=2e-4)
    rate = learning_rate(config, 110)
    assert [float(rate(step)) for step in (0, 5, 10)] == pytest.approx([0, 1e-3, 2e-3])
    assert float(rate(60)) == pytest.approx(1.1e-3)  # half way down
    assert float(rate(110)) == pytest.approx(2e-4)
    constant = learning_rate(OptimizerConfig(lr=2e-3, warmup=4, decay="constant"), 100)
    assert [float(constant(step)) for step in (0, 2, 4, 99)] == pytest.approx([0, 1e-3, 2e-3, 2e-3])
    assert float(learning_rate(OptimizerConfig(lr=2e-3), 100)(0)) == pytest.approx(2e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", 0.0), ("eps", 0.0), ("warmup", -1), ("weight_decay", -0.1), ("clip", -1.0), ("warmup", 100)],
)
def test_optimizer_fields_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        make_optimizer(OptimizerConfig(**{field: value}), 100)


def test_decay_spares_norms_biases_and_embeddings():
    shapes = {
        "down_0": {"norm1": {"scale": (4,), "bias": (4,)}, "conv1": {"kernel": (3, 3, 4, 4), "bias": (4,)}},
        "text": {"embed": {"table": (9, 4)}, "position_embed": (7, 4), "q": {"kernel": (4, 2, 2), "bias": (2, 2)}},
    }
    params = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
    assert decayed(params) == {
        "down_0": {"norm1": {"scale": False, "bias": False}, "conv1": {"kernel": True, "bias": False}},
        "text": {"embed": {"table": False}, "position_embed": False, "q": {"kernel": True, "bias": False}},
    }


def test_adafactor_is_what_its_paper_says_and_keeps_rows_and_columns():
    """Algorithm 4 of arXiv 1804.04235, in numpy: r and c are means of rows and columns of g^2, b_n = 1 - n^-0.8."""
    rng = np.random.default_rng(0)
    params = {"fc": {"kernel": jnp.asarray(rng.normal(size=(160, 128)), jnp.float32), "bias": jnp.zeros(128)}}
    optimizer = make_optimizer(
        OptimizerConfig(name="adafactor", lr=0.1, decay="constant", clip=0.0, weight_decay=0.0), 9
    )
    state = optimizer.init(params)
    sizes = [x.nbytes for x in jax.tree.leaves(state)]
    assert sum(sizes) < 4 * (160 + 128 + 128) + 64
    adam = make_optimizer(OptimizerConfig(name="adam", decay="constant"), 9).init(params)
    assert sum(x.nbytes for x in jax.tree.leaves(adam)) > 2 * 4 * 160 * 128
    r, c = np.zeros(160), np.zeros(128)
    for n in (1, 2, 3):
        g = rng.normal(size=(160, 128))
        grads = {"fc": {"kernel": jnp.asarray(g, jnp.float32), "bias": jnp.ones(128)}}
        update, state = optimizer.update(grads, state, params)
        decay = 1 - n**-0.8
        r, c = (decay * old + (1 - decay) * (g**2).mean(axis) for old, axis in ((r, 1), (c, 0)))
        u = g / np.sqrt(np.outer(r, c) / r.mean())
        u /= max(1.0, np.sqrt((u**2).mean()))
        np.testing.assert_allclose(update["fc"]["kernel"], -0.1 * u, rtol=2e-4, atol=1e-6)


def test_adafactor_keeps_a_small_part_of_adams_state_of_stable_diffusion():
    """Of a U-Net of published size, as shapes; beside the weights and their gradient Adam keeps twice as much."""
    json = PRESETS["sd1"]["unet"]
    one = components.family(KINDS["unet"])
    params = one.shapes(one.config(json), json)
    count = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    kept = {}
    for kind in ("adam", "adafactor"):
        init = make_optimizer(OptimizerConfig(name=kind, decay="constant"), 9).init
        kept[kind] = count(jax.eval_shape(init, params))
    assert kept["adam"] >= 2 * count(params)
    assert kept["adafactor"] < 0.01 * kept["adam"]


def test_adamw_is_adam_and_decay():
    """The first step of Adam is lr * sign(g); AdamW adds lr * decay * w."""
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full((2,), 3.0)}
    grads = {"kernel": jnp.full((2, 2), -7.0), "bias": jnp.full((2,), 5.0)}
    steps = {}
    for name in ("adam", "adamw", "sgd"):
        optimizer = make_optimizer(OptimizerConfig(name=name, lr=0.1, weight_decay=0.5, clip=0.0), 100)
        steps[name], _ = optimizer.update(grads, optimizer.init(params), params)
    assert float(steps["adam"]["kernel"][0, 0]) == pytest.approx(0.1, rel=1e-5)
    assert float(steps["adamw"]["kernel"][0, 0]) == pytest.approx(0.1 - 0.1 * 0.5 * 3, abs=2e-6)  # 1 - b2 in float32
    assert float(steps["adamw"]["bias"][0]) == pytest.approx(-0.1, rel=1e-5)
    assert float(steps["sgd"]["kernel"][0, 0]) == pytest.approx(0.7, rel=1e-5)


def test_clipping_bounds_the_global_norm_and_the_metric_shows_the_one_before():
    optimizer = make_optimizer(OptimizerConfig(name="sgd", lr=1.0, clip=0.5, decay="constant"), 10)
    loss = lambda params, known, batch, keys: (jnp.mean(batch["x"]) * (3 * params["a"] + 4 * params["b"]), {}, {})
    task = make_task(lambda key: {"a": jnp.zeros(()), "b": jnp.zeros(())}, loss)
    state = make_init_state(task, optimizer)(jax.random.key(0), {}, {})
    step = make_train_step(task, optimizer, make_ema())
    state, metrics = step(state, {"x": jnp.ones(2)}, jax.random.split(jax.random.key(0), 2))
    assert float(metrics["grad_norm"]) == pytest.approx(5)
    assert (float(state.params["a"]), float(state.params["b"])) == pytest.approx((-0.3, -0.4))
    assert float(metrics["param_norm"]) == pytest.approx(0.5)
    assert float(metrics["update_norm"]) == pytest.approx(0.5)
    assert float(metrics["lr"]) == 1.0
    assert int(state.step) == 1
    assert float(state.ema_params["b"]) == pytest.approx(-0.36)  # nine tenths at the first update


def test_accumulated_gradients_and_metrics_are_the_means_of_the_whole():
    optimizer = make_optimizer(OptimizerConfig(name="sgd", lr=1e-2, decay="constant", clip=0.0), 10)
    state = make_init_state(TASK, optimizer)(jax.random.key(0), {}, {})
    batch = next(Data(12))
    keys = jax.random.split(jax.random.key(1), 12)
    step = functools.partial(make_train_step, TASK, optimizer, make_ema())
    (one, metrics), (parts, metrics_of_parts) = (
        jax.jit(step(accumulate=n))(state, batch, jax.random.clone(keys)) for n in (1, 3)
    )
    for a, b in zip(jax.tree.leaves(parts.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for name in metrics:
        assert float(metrics_of_parts[name]) == pytest.approx(float(metrics[name]), rel=1e-5), name


def test_a_batch_that_does_not_split_into_parts_is_refused_before_compiling():
    optimizer = make_optimizer(OptimizerConfig(name="sgd", lr=1e-2, decay="constant", clip=0.0), 10)
    state = jax.eval_shape(make_init_state(TASK, optimizer), jax.random.key(0), {}, {})
    step = make_train_step(TASK, optimizer, make_ema(), accumulate=5)
    with pytest.raises(ValueError, match="a batch of 12 does not split into accumulate = 5 parts"):
        jax.eval_shape(step, state, next(Data(12)), jax.random.split(jax.random.key(0), 12))


def test_bfloat16_weights_are_refused_by_name():
    params = lambda key: {"conv": {"kernel": jnp.zeros((2, 2), jnp.bfloat16), "bias": jnp.zeros(2)}}
    with pytest.raises(ValueError, match=r"not: conv/kernel \(bfloat16\)"):
        jax.eval_shape(
            make_init_state(make_task(params, TASK.loss), make_optimizer(OptimizerConfig(), 9)),
            jax.random.key(0),
            {},
            {},
        )
