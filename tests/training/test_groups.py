"""Optimizers by path, what a rule moves and what is constant: the same on every mesh, under pmap and accumulation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_task import make_task

from jaxdiff.parallel import MeshSpec, compile, rules
from jaxdiff.training import (
    Known,
    OptimizerConfig,
    Task,
    Variables,
    make_ema,
    make_eval_step,
    make_init_state,
    make_optimizer,
    make_train_step,
)

SGD = OptimizerConfig(name="sgd", lr=0.1, decay="constant", clip=0.0)
CRITIC = OptimizerConfig(name="sgd", lr=0.05, decay="constant", clip=0.5)
WIDTH = 32


def init(key, loaded, batch):
    """The scale of the first batch sets that of the first layer, as ActNorm does."""
    keys = iter(jax.random.split(key, 4))
    layer = lambda i, o: {"kernel": jax.random.normal(next(keys), (i, o)) / np.sqrt(i)}
    first = layer(4, WIDTH)
    generator = {"fc1": {"kernel": first["kernel"] / jnp.std(batch["x"])}, "fc2": layer(WIDTH, 4)}
    critic = {"fc1": layer(4, WIDTH), "fc2": layer(WIDTH, 1)}
    return Variables({"generator": generator, "critic": critic}, loaded, {"center": jnp.zeros(4)})


def mlp(params, x):
    return jnp.tanh(x @ params["fc1"]["kernel"]) @ params["fc2"]["kernel"]


def loss(params, known, batch, keys):
    """A generator that is to fool a critic, and the critic, in one loss by `stop_gradient`."""
    stop = jax.lax.stop_gradient
    noise = jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys)
    made = mlp(params["generator"], noise) + known.extra["center"][None] + (batch["x"] @ known.frozen["base"])
    fool = -mlp(stop(params["critic"]), made).mean() + jnp.mean((made - batch["x"]) ** 2)
    tell = jnp.mean(jnp.tanh(mlp(params["critic"], stop(made)) - mlp(params["critic"], batch["x"])))
    anchor = known.ema["generator"]["fc2"]["kernel"].mean()
    return fool + tell + 0 * anchor, {"tell": tell}, {"center": batch["x"].mean(0)}


TASK = Task(
    init=init,
    loss=loss,
    example=lambda one, rng: one,
    absorb=lambda extra, stats: {"center": 0.9 * extra["center"] + 0.1 * stats["center"]},
    groups=((r"critic/.*", CRITIC),),
    averaged=("generator",),
)


def batch(step):
    return {"x": np.random.default_rng(step).normal(size=(16, 4)).astype(np.float32) * 2 + 1}


def program(spec=MeshSpec(), devices=8, accumulate=1, task=TASK):
    optimizer = make_optimizer(SGD, 5, task.groups)
    make_step = functools.partial(make_train_step, task, optimizer, make_ema(0.9), accumulate=accumulate)
    loaded = {"base": jnp.eye(4) * 0.3}
    chosen = jax.devices()[:devices]
    return compile(make_step, make_init_state(task, optimizer), loaded, batch(0), spec, task.rules, chosen)


def train(*args, steps=5, **kwargs):
    run, root = program(*args, **kwargs), jax.random.key(1)
    state = run.init(jax.random.key(0))
    for step in range(steps):
        state, metrics = run.step(state, run.put(batch(step)), run.keys(root, step, 16))
    return jax.device_get(state), jax.device_get(metrics)


@pytest.fixture(scope="module")
def one_device():
    return train(devices=1)


@pytest.mark.parametrize(
    ("spec", "devices", "accumulate"),
    [
        (MeshSpec(), 1, 4),
        ("pmap", 8, 1),
        ("pmap", 4, 2),
        (MeshSpec(data=8), 8, 1),
        (MeshSpec(data=1, fsdp=8), 8, 1),
        (MeshSpec(data=2, fsdp=2, tensor=2), 8, 2),
    ],
    ids=str,
)
def test_every_strategy_trains_the_same(spec, devices, accumulate, one_device, monkeypatch):
    monkeypatch.setattr(rules, "SMALLEST", 64)  # so that these small weights are split too
    found, told = train(spec, devices=devices, accumulate=accumulate)
    for name in ("params", "ema_params", "extra", "frozen"):
        ours, theirs = getattr(found, name), getattr(one_device[0], name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)
    for name, value in one_device[1].items():
        assert told[name] == pytest.approx(value, rel=1e-4), name


def test_each_group_moves_by_its_own_optimizer(one_device):
    state, told = one_device
    assert (told["lr/rest"], told["lr/critic"]) == (pytest.approx(0.1), pytest.approx(0.05))
    assert told["grad_norm"] == pytest.approx(np.hypot(told["grad_norm/rest"], told["grad_norm/critic"]), rel=1e-5)
    assert [*state.ema_params] == ["generator"]
    expected = functools.reduce(lambda c, step: 0.9 * c + 0.1 * batch(step)["x"].mean(0), range(5), np.zeros(4))
    np.testing.assert_allclose(state.extra["center"], expected, rtol=1e-5)


def test_gradients_are_those_of_two_separate_losses():
    variables = init(jax.random.key(0), {"base": jnp.eye(4)}, batch(0))
    state = make_init_state(TASK, make_optimizer(SGD, 5, TASK.groups))(
        jax.random.key(0), {"base": jnp.eye(4)}, batch(0)
    )
    keys = lambda: jax.random.split(jax.random.key(2), 16)

    known = Known(state.frozen, state.extra, state.ema_params, 0)
    both = jax.jit(jax.grad(lambda p: loss(p, known, batch(0), keys())[0]))(variables.params)

    def generator(part):
        params = {**variables.params, "generator": part}
        noise = jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys())
        made = mlp(params["generator"], noise) + batch(0)["x"] @ jnp.eye(4)
        return -mlp(params["critic"], made).mean() + jnp.mean((made - batch(0)["x"]) ** 2)

    alone = jax.jit(jax.grad(generator))(variables.params["generator"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), both["generator"], alone)


def test_every_so_many_steps():
    """With `every` 3, steps 0, 3 and 6 of a cosine move, by the rates of these steps; the others change nothing."""
    config = OptimizerConfig(name="adam", lr=1.0, every=3, clip=0.0)
    optimizer = make_optimizer(config, 9)
    plain = make_optimizer(OptimizerConfig(name="sgd", lr=1.0, every=3, clip=0.0), 9)
    params = {"w": jnp.zeros(2)}
    state, moved = plain.init(params), []
    for _ in range(9):
        updates, state = plain.update({"w": jnp.ones(2)}, state, params)
        moved.append(-float(updates["w"][0]))
    rates = [0.5 * (1 + np.cos(np.pi * step / 9)) if step % 3 == 0 else 0 for step in range(9)]
    np.testing.assert_allclose(moved, rates, atol=1e-6)
    np.testing.assert_allclose(
        [float(plain.rates["rest"](step)) for step in (0, 1, 2, 3)], [1, 1, 1, rates[3]], rtol=1e-6
    )
    state, count = optimizer.init(params), []
    for _ in range(5):
        _, state = optimizer.update({"w": jnp.ones(2)}, state, params)
        count.append(int(state["inner"][0].count))
    assert count == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ((("discriminator/.*", SGD),), r"'discriminator/.\*' matches no parameter.*begin with \w+, \w+"),
        (
            ((".*", SGD), ("critic/.*", SGD)),
            r"'critic/.\*' matches no parameter, or all it matches go to groups before",
        ),
        ((("critic", SGD),), "'critic' matches no parameter"),  # patterns match whole paths
        ((("critic/.*", SGD), ("critic/.*", SGD)), "have one name, critic"),
        ((("critic/.*", OptimizerConfig(lr=0.0)),), "optimizer.lr of group critic is 0.0"),
    ],
)
def test_a_group_that_cannot_be_is_refused_before_anything_compiles(groups, words):

    with pytest.raises(ValueError, match=words):
        program(devices=1, task=dataclasses.replace(TASK, groups=groups))


def test_a_name_that_is_no_parameter_is_not_averaged():
    task = make_task(lambda key: {"w": jnp.zeros(())}, loss, averaged=("v",))
    with pytest.raises(ValueError, match="averaged names no parameters: v; there are w"):
        jax.eval_shape(make_init_state(task, make_optimizer(SGD, 5)), jax.random.key(0), {}, {})


def test_a_single_group_keeps_the_state_that_older_checkpoints_have():
    """optax.chain's tuple, without the wrapping of groups."""
    params = {"w": jnp.zeros((2, 2))}
    state = make_optimizer(OptimizerConfig(), 5).init(params)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(state)
    ]
    assert paths == ["1/count", "1/mu/w", "1/nu/w", "3/count"]


def test_the_held_out_loss_reads_the_average_and_what_no_average_follows():
    seen = []

    def held_out(params, known, batch, keys):
        seen.append(sorted(params))
        return params["generator"]["fc2"]["kernel"].sum(), {}, {"kept": jnp.ones(2)}

    task = dataclasses.replace(TASK, held_out=held_out)
    optimizer = make_optimizer(SGD, 5, task.groups)
    state = make_init_state(task, optimizer)(jax.random.key(0), {"base": jnp.eye(4)}, batch(0))
    state = dataclasses.replace(state, ema_params=jax.tree.map(jnp.zeros_like, state.ema_params))
    summed = dataclasses.replace(task, summary=lambda stats: {})
    for one, kept in ((task, set()), (summed, {"kept"})):
        _, (told, stats) = make_eval_step(one)(state, batch(0), jax.random.split(jax.random.key(0), 16))
        assert float(told["loss"]) == 0
        assert {*stats} == kept
    assert seen == [["critic", "generator"]] * 2
