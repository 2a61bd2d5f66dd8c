"""A small network with a convolution and attention in plain JAX, its task, and its data: what the tests train."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.parallel import MeshSpec, compile
from jaxdiff.training import (
    OptimizerConfig,
    Task,
    Variables,
    make_ema,
    make_init_state,
    make_optimizer,
    make_train_step,
)

WIDTH = 128


def init(key):
    shapes = {
        "conv": {"kernel": (3, 3, 3, WIDTH), "bias": (WIDTH,)},
        "attn": {name: {"kernel": (WIDTH, WIDTH)} for name in ("q", "k", "v", "out")},
        "mlp": {"fc1": {"kernel": (WIDTH, 2 * WIDTH), "bias": (2 * WIDTH,)}, "fc2": {"kernel": (2 * WIDTH, 3)}},
    }
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    ends = np.cumsum([np.prod(shape) for shape in leaves])
    parts = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])  # one draw: it compiles faster
    values = [part.reshape(s) / np.sqrt(np.prod(s[:-1])) for part, s in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(tree, values)


def network(params, x):
    x = jax.lax.conv_general_dilated(
        x, params["conv"]["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = (x + jnp.broadcast_to(params["conv"]["bias"], x.shape)).reshape(x.shape[0], -1, WIDTH)
    q, k, v = (jnp.reshape(x @ params["attn"][n]["kernel"], (*x.shape[:2], 4, WIDTH // 4)) for n in "qkv")
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(WIDTH // 4))
    x = x + jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ params["attn"]["out"]["kernel"]
    h = x @ params["mlp"]["fc1"]["kernel"]
    return jax.nn.gelu(h + jnp.broadcast_to(params["mlp"]["fc1"]["bias"], h.shape)) @ params["mlp"]["fc2"]["kernel"]


def loss(params, known, batch, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, batch["image"].shape[1:]))(keys)
    error = network(params, batch["image"] + noise) - noise[:, ::2, ::2].reshape(noise.shape[0], -1, 3)
    return jnp.mean(error**2), {"error": jnp.mean(jnp.abs(error))}, {}


def make_task(init, loss, **kwargs):
    """A task whose `init` takes a key alone."""
    return Task(init=lambda key, loaded, batch: Variables(init(key)), loss=loss, example=lambda one, rng: one, **kwargs)


TASK = make_task(init, loss)


def matrix_loss(params, known, batch, keys):
    x = batch["image"].reshape(batch["image"].shape[0], -1)[:, :64]
    noise = jax.vmap(lambda key: jax.random.normal(key, (64,)))(keys)
    return jnp.mean(jnp.square((x + noise) @ params["w"] - noise)), {}, {}


MATRIX = make_task(lambda key: {"w": jax.random.normal(key, (64, 64)) / 8}, matrix_loss)
"""One product of matrices: compiles in no time, for tests that start many processes."""


class Data:
    """Batches that follow from a count, as Grain's do."""

    def __init__(self, batch, first=0, last=None):
        self.batch, self.rows, self.count = batch, slice(first, last), 0

    def __iter__(self):
        return self

    def __next__(self):
        images = np.random.default_rng(self.count).standard_normal((self.batch, 8, 8, 3)).astype(np.float32)
        self.count += 1
        return {"image": images[self.rows]}

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


def program(spec=None, optimizer=None, steps=100, accumulate=1, decay=0.99, task=TASK, devices=None, loaded=None):
    transform = make_optimizer(optimizer or OptimizerConfig(), steps, task.groups)
    make_step = functools.partial(make_train_step, task, transform, make_ema(decay), accumulate=accumulate)
    init_state, spec = make_init_state(task, transform), spec or MeshSpec()
    return compile(make_step, init_state, loaded or {}, {}, spec, task.rules, devices)
