"""What tests of the families share: made pictures, weights that say something, and a whole task's loss and pipeline."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.tasks.family import Assets
from jaxdiff.training import Known


def pictures(count=4, size=4):
    """Noise, uint8 [n h w 3]."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8))


def randomised(tree, scale=0.5, seed=1):
    """A tree of the same shape with normal numbers, so that no layer that starts from zero hides what follows."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(scale * rng.standard_normal(x.shape), x.dtype), tree)


def every(levels, shape):
    """All pictures [levels^d h w c] of a shape (h, w, c)."""
    d = int(np.prod(shape))
    return jnp.asarray(np.stack(np.meshgrid(*[np.arange(levels)] * d, indexing="ij"), -1).reshape(-1, *shape))


def keys(count, seed=3):
    return jax.random.split(jax.random.key(seed), count)


def loss(config, size=4, count=4, labels=()):
    """(task, first variables, loss, metrics) of a family on noise."""
    assets = Assets(size, labels)
    task = config.task(assets)
    batch = {"image": pictures(count, size)}
    if labels:
        batch["label"] = jnp.arange(count) % len(labels)

    @jax.jit
    def run(key, draws):
        start = task.init(key, {}, batch)
        return start, task.loss(start.params, Known(start.frozen, start.extra, {}, 0), batch, draws)

    start, (value, metrics, stats) = run(jax.random.key(0), keys(count))
    return task, start, value, (metrics, stats)
