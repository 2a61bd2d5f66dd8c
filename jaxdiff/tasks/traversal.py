"""Traversals: what each latent number of an autoencoder says, as pictures where it alone moves and the others are 0."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.training import Preview, Variables
from jaxdiff.typing import Key, Params

MOST = 16
"""Numbers that are shown, the first ones."""
VALUES = np.linspace(-3, 3, 7)
"""Deviations of the prior that a number goes through."""


def preview(config: Any, size: int) -> Any:
    """Returns a preview of a row for each number, from -3 to 3.

    Args:
      config: a `vae.Config`.
      size: size of the pictures.
    """
    latent = config.latent((size, size, config.channels))
    count = min(MOST, int(np.prod(latent)))

    @jax.jit
    def made(params: Params) -> Array:
        rows = jnp.eye(int(np.prod(latent)))[:count]
        z = rows[:, None] * jnp.asarray(VALUES, jnp.float32)[None, :, None]
        return config.shown(config.decode(params, z.reshape(-1, *latent)))

    def show(weights: Variables, key: Key) -> Preview:
        images = np.asarray(made(weights.params)).reshape(count, len(VALUES), size, size, 3)
        rows = images.transpose(0, 2, 1, 3, 4).reshape(count, size, -1, 3)
        return Preview(rows, tuple(f"number {i}, {VALUES[0]:g} to {VALUES[-1]:g}" for i in range(count)))

    return show
