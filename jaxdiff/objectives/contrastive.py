"""Contrast between pairs of vectors: each picture against all texts of a batch, and each text against all pictures.

    L = -1/2 mean_i (log softmax_j (s x_i . y_j)[i] + log softmax_j (s x_j . y_i)[i]),   |x_i| = |y_i| = 1

The sums over j go over the whole batch. Where a program sees all of it, as on a mesh, nothing is to be done; where each
device is called with its own part, as under pmap, `gather` brings the others'. Each device then takes the mean over its
own pairs, whose average over devices is L, and so are gradients: what is gathered passes them back to its device.

Source: Radford et al. 2021, arXiv 2103.00020, figure 3.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MOST = 100.0
"""The largest scale of the logits."""


def unit(x: Float[Array, "b e"]) -> Float[Array, "b e"]:
    """Returns vectors over their lengths, in float32."""
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def scale(log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """Returns the scale of the logits, at most `MOST`; beyond that its gradient is 0."""
    return jnp.exp(jnp.minimum(log_scale, jnp.log(MOST)))


def whole(x: Any) -> Any:
    """Returns the batch as it is: all of it."""
    return x


def over(axis: str) -> tuple[Callable[[Array], Array], Callable[[int], Int[Array, " b"]]]:
    """Returns `gather` and `own` of a program that is mapped over an axis of devices."""
    gather = lambda x: jax.lax.all_gather(x, axis, tiled=True)
    return gather, lambda count: jax.lax.axis_index(axis) * count + jnp.arange(count)


def contrast(
    x: Float[Array, "b e"],
    y: Float[Array, "b e"],
    scale: Float[Array, ""],
    gather: Callable[[Array], Array] = whole,
    own: Callable[[int], Int[Array, " b"]] = jnp.arange,
) -> tuple[Float[Array, ""], Float[Array, " b"]]:
    """Returns the loss, and whether each picture's own text is the nearest of the batch, as 1 or 0.

    Args:
      x: vectors of pictures, of length 1.
      y: vectors of their texts, likewise.
      scale: of the logits.
      gather: (part of the batch) -> the whole batch.
      own: (examples at hand) -> their places in the whole batch.
    """
    place = own(len(x))
    logits = [scale * a @ gather(b).T for a, b in ((x, y), (y, x))]
    at = lambda z: jnp.take_along_axis(z, place[:, None], 1)[:, 0]
    each = [at(jax.nn.log_softmax(z)) for z in logits]
    nearest = (jnp.argmax(logits[0], 1) == place).astype(jnp.float32)
    return -(each[0] + each[1]).mean() / 2, nearest


def precision(
    x: Float[Array, "b e"],
    y: Float[Array, "n e"],
    same: Bool[Array, "b n"],
    place: Int[Array, " b"],
    candidates: int,
) -> Float[Array, " b"]:
    """Returns whether each picture's own text is the nearest of `candidates`, itself and those after it, as 1 or 0.

    Args:
      x: vectors of pictures, of length 1.
      y: vectors of all texts, likewise; after the last comes the first.
      same: which texts say the same as a picture's own: they do not count against it.
      place: number of each picture's own text.
      candidates: at most n.

    Source: Park et al. 2021, "Benchmark for compositional text-to-image synthesis", section 3 (R-precision).
    """
    near = x @ y.T
    after = (jnp.arange(len(y))[None] - place[:, None]) % len(y)
    against = (after < candidates) & ~same
    mine = jnp.take_along_axis(near, place[:, None], 1)
    return (jnp.where(against, near, -jnp.inf) < mine).all(1).astype(jnp.float32)
