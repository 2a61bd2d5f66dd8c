"""Data and weights for tests of what stands on a CLIP."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.config import DataConfig
from jaxdiff.data.source import Part, open_source
from jaxdiff.training import Variables

DATA = DataConfig(name="synthetic", size=8)


def few():
    """Forty of the examples."""
    return Part(open_source(DATA), range(40))


def placed(tree):
    return jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), tree)


def drawn(task, seed=0, scale=0.3):
    """Weights that are nowhere zero."""
    loaded = task.load(placed)
    rows = [task.example({"image": np.zeros((8, 8, 3), np.uint8), "caption": "", "label": 0}, np.random.default_rng(0))]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    shapes = jax.eval_shape(task.init, jax.random.key(0), loaded, batch).params
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * scale, jnp.float32), shapes)
    return Variables(params, loaded)
