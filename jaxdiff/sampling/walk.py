"""Kernels for other spaces than that of all numbers: levels that jump, tokens that come out of a mask, and surfaces.

Each is a `Kernel` that `drive` runs over rows of numbers, as every sampler is; levels are whole numbers in float32,
which are exact.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdiff.diffusion import categorical
from jaxdiff.diffusion.categorical import Chain
from jaxdiff.diffusion.spaces import Space
from jaxdiff.sampling.kernel import Kernel, drive, keys_of
from jaxdiff.typing import Key

Says = Callable[[Array, Array], Array]
"""(x_t [b *s], t [b]) -> logits of x_0 [b *s K]."""


class Row(NamedTuple):
    """The numbers of a step: where it begins, and how far it goes."""

    t: Any
    h: Any


def jumps(of: Chain, says: Says, temperature: Any = 1.0) -> Kernel:
    """Returns the kernel of a chain of levels backwards, a row t = T .. 1 for each step."""

    def step(x: Array, row: Array, keys: Any) -> tuple[Array, Array]:
        at, level = jnp.full(len(x), row, jnp.int32), x.astype(jnp.int32)
        guess = jax.nn.softmax(says(level, at) / temperature)
        drawn = jax.vmap(jax.random.categorical)(keys, categorical.posterior(of, guess, level, at))
        return drawn.astype(jnp.float32), guess.argmax(-1).astype(jnp.float32)

    return Kernel(lambda x: x, step, lambda x: x)


def levels(of: Chain, says: Says, keys: Key, shape: tuple[int, ...], temperature: Any = 1.0) -> Int[Array, " b *s"]:
    """Draws levels [b *shape] by all steps of a chain, from its last law."""
    first, walk = _two(keys)
    last = jnp.asarray(np.log(of.last + 1e-30), jnp.float32)
    start = jax.vmap(lambda key: jax.random.categorical(key, last, shape=shape))(first)
    rows = jnp.arange(of.steps, 0, -1)
    return _whole(drive(jumps(of, says, temperature), rows, start, walk))


def unmasking(mask: int, says: Says, temperature: Any = 1.0) -> Kernel:
    """Returns the kernel of masked diffusion from t to t - h: a token is unmasked with probability h / t."""

    def step(x: Array, row: Row, keys: Any) -> tuple[Array, Array]:
        token = x.astype(jnp.int32)
        logits = says(token, jnp.full(len(x), row.t)) / temperature
        which, when = _two(keys)
        drawn = jax.vmap(jax.random.categorical)(which, logits)
        opened = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(when) < row.h / row.t
        return jnp.where((token == mask) & opened, drawn, token).astype(jnp.float32), drawn.astype(jnp.float32)

    return Kernel(lambda x: x, step, lambda x: x)


def unmasked(
    mask: int, says: Says, keys: Key, shape: tuple[int, ...], steps: int, temperature: Any = 1.0
) -> Int[Array, " b *s"]:
    """Draws tokens [b *shape] in equal steps from all mask to none."""
    t = np.linspace(1, 0, steps + 1)
    rows = Row(*(jnp.asarray(x, jnp.float32) for x in (t[:-1], t[:-1] - t[1:])))
    return _whole(drive(unmasking(mask, says, temperature), rows, jnp.full((len(keys), *shape), mask), keys))


def surface(space: Space, score: Callable[[Array, Array], Array]) -> Kernel:
    """Returns the kernel of a walk backwards in a space; `score` is of (x [b d], v [b])."""

    def step(x: Array, row: Row, keys: Any) -> tuple[Array, Array]:
        s = score(x, jnp.full(len(x), row.t))
        tangent = row.h * s + jnp.sqrt(row.h) * jax.vmap(space.noise)(keys, x)
        return jax.vmap(space.move)(x, tangent), jax.vmap(space.move)(x, row.t * s)

    return Kernel(lambda x: x, step, lambda x: x)


def walked(
    space: Space, score: Callable[[Array, Array], Array], keys: Key, dims: int, steps: int, least: float = 1e-3
) -> Float[Array, "b d"]:
    """Draws points of a space from the uniform law, in steps whose variances fall by a constant factor to `least`.

    Args:
      space: where.
      score: (x [b d], v [b]) -> gradient of log p_v.
      keys: one for each point.
      dims: numbers of a point.
      steps: calls of the score.
      least: variance that is left.
    """
    first, walk = _two(keys)
    start = jax.vmap(lambda key: space.uniform(key, jnp.zeros(dims)))(first)
    v = np.geomspace(space.most, least, steps + 1)
    rows = Row(*(jnp.asarray(x, jnp.float32) for x in (v[:-1], v[:-1] - v[1:])))
    drawn: Any = drive(surface(space, score), rows, start, walk)
    return drawn


def _two(keys: Any) -> tuple[Key, Key]:
    """Returns two keys for each."""
    both = jax.vmap(jax.random.split)(keys_of(keys, len(keys)))
    return both[:, 0], both[:, 1]


def _whole(x: Any) -> Array:
    return x.astype(jnp.int32)
