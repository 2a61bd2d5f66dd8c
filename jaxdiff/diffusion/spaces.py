"""Diffusion where not every number may be: the cube, the torus, the sphere; and the simplex, which the cube is bent to.

On each, data walk by Brownian motion of variance v, which ends in the uniform law. Backwards from v to v - h,

    x <- move(x, h score(x, v) + sqrt(h) n),    score = grad log p_v,

where n is noise along the surface, and `move` stays in the space: it reflects at the cube's faces, goes once around the
torus, or follows the sphere's great circle. A network learns the score from that of one example's walk, p_v(y | x0),

    E v |s(y, v) - grad_y log p_v(y | x0)|^2,

which is a sum over images of a Gaussian (cube: mirrored, torus: shifted by 2 pi), or on the sphere over Legendre
polynomials, sum_l (2 l + 1) / (4 pi) exp(-l (l + 1) v / 2) P_l(x0 y).

Sources: Lou and Ermon 2023 (reflected diffusion), arXiv 2304.04740, sections 3 and 4; De Bortoli et al. 2022
(Riemannian score models), arXiv 2202.02763, algorithms 1 and 2 and table 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.typing import Key


class Space(NamedTuple):
    """A space of points x [d], by functions of one point.

    Attributes:
      move: (x, tangent) -> x: where it leads.
      noise: (key, x) -> a unit Gaussian along the surface.
      uniform: (key, x) -> a point of the uniform law, of the same shape.
      noised: (key, x0, v) -> x after a walk of variance v.
      score: (x0, x, v) -> gradient of log p_v(x | x0) along the surface.
      most: variance after which the law is uniform, but for a hundredth.
    """

    move: Callable[[Array, Array], Array]
    noise: Callable[[Key, Array], Array]
    uniform: Callable[[Key, Array], Array]
    noised: Callable[[Key, Array, Any], Array]
    score: Callable[[Array, Array, Any], Array]
    most: float


IMAGES = np.arange(-4, 5)


def _of_images(images: Float[Array, "i d"], x: Float[Array, " d"], v: Any) -> Array:
    """Returns the score of a sum of Gaussians of variance v around images, number by number."""
    away = x[None] - images
    return (jax.nn.softmax(-away * away / (2 * v), 0) * -away / v).sum(0)


def _gaussian(key: Key, x: Array) -> Array:
    return jax.random.normal(key, x.shape)


def reflect(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the points of [0, 1] that numbers reach when 0 and 1 are mirrors."""
    return 1 - jnp.abs(jnp.mod(x, 2) - 1)


def cube() -> Space:
    """Returns the cube [0, 1]^d."""

    def score(x0: Array, x: Array, v: Any) -> Array:
        shifts = 2.0 * jnp.asarray(IMAGES, jnp.float32)[:, None]
        return _of_images(jnp.concatenate([x0[None] + shifts, -x0[None] + shifts]), x, v)

    return Space(
        move=lambda x, tangent: reflect(x + tangent),
        noise=_gaussian,
        uniform=lambda key, x: jax.random.uniform(key, x.shape),
        noised=lambda key, x0, v: reflect(x0 + jnp.sqrt(v) * _gaussian(key, x0)),
        score=score,
        most=1.0,
    )


def wrap(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns angles in [-pi, pi)."""
    return jnp.mod(x + np.pi, 2 * np.pi) - np.pi


def torus() -> Space:
    """Returns the torus, of angles in [-pi, pi)."""
    shifts = 2 * np.pi * IMAGES[:, None].astype(np.float32)
    return Space(
        move=lambda x, tangent: wrap(x + tangent),
        noise=_gaussian,
        uniform=lambda key, x: jax.random.uniform(key, x.shape, minval=-np.pi, maxval=np.pi),
        noised=lambda key, x0, v: wrap(x0 + jnp.sqrt(v) * _gaussian(key, x0)),
        score=lambda x0, x, v: _of_images(x0[None] + shifts, x, v),
        most=10.0,
    )


TERMS = 48
"""Legendre polynomials of the sphere's heat kernel, which are enough for v of 0.02 and more."""
_NEAR = 0.02
_WALKS = 16


def along(x: Float[Array, " 3"], vector: Float[Array, " 3"]) -> Float[Array, " 3"]:
    """Returns the part of a vector that is along the sphere at x."""
    return vector - (vector @ x) * x


def geodesic(x: Float[Array, " 3"], tangent: Float[Array, " 3"]) -> Float[Array, " 3"]:
    """Returns the point of the sphere that a tangent leads to along a great circle."""
    length = jnp.sqrt(tangent @ tangent + 1e-20)
    y = jnp.cos(length) * x + jnp.sin(length) * tangent / length
    return y / jnp.sqrt(y @ y)


def legendre(c: Float[Array, ""], weights: Float[Array, " l"]) -> tuple[Array, Array]:
    """Returns sum_l w_l P_l(c) and its derivative by c, by the recurrences of P_l and of P_l'."""

    def step(state: Any, row: Any) -> tuple[Any, None]:
        (p, before), (q, q_before), total, slope = state
        n, w = row
        after = ((2 * n + 1) * c * p - n * before) / (n + 1)
        q_after = q_before + (2 * n + 1) * p
        return ((after, p), (q_after, q), total + w * after, slope + w * q_after), None

    one, zero = jnp.ones_like(c), jnp.zeros_like(c)
    start = ((c, one), (one, zero), weights[0] + weights[1] * c, weights[1] * one)
    numbers = jnp.arange(1.0, len(weights) - 1)
    (_, _, total, slope), _ = jax.lax.scan(step, start, (numbers, weights[2:]))
    return total, slope


def heat(v: Any) -> Array:
    """Returns the weights of the sphere's heat kernel."""
    n = jnp.arange(float(TERMS))
    return (2 * n + 1) / (4 * np.pi) * jnp.exp(-n * (n + 1) * v / 2)


def sphere() -> Space:
    """Returns the sphere of unit vectors [3]; a walk is `_WALKS` steps along great circles."""

    def uniform(key: Key, x: Array) -> Array:
        n = jax.random.normal(key, x.shape)
        return n / jnp.linalg.norm(n)

    def noise(key: Key, x: Array) -> Array:
        return along(x, jax.random.normal(key, x.shape))

    def noised(key: Key, x0: Array, v: Any) -> Array:
        step = lambda x, n: (geodesic(x, jnp.sqrt(v / _WALKS) * along(x, n)), None)
        return jax.lax.scan(step, x0, jax.random.normal(key, (_WALKS, *x0.shape)))[0]

    def score(x0: Array, x: Array, v: Any) -> Array:
        c = jnp.clip(x0 @ x, -1, 1)
        total, slope = legendre(c, heat(jnp.maximum(v, _NEAR)))
        angle = jnp.arccos(jnp.clip(c, -0.999999, 0.999999))
        near = angle / jnp.sin(angle) / v  # of a short walk, that of the plane
        return along(x, x0) * jnp.where(v < _NEAR, near, slope / jnp.maximum(total, 1e-6))

    return Space(geodesic, noise, uniform, noised, score, most=4.0)


def to_simplex(u: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    """Returns d + 1 parts of one, by breaking a stick: the first is u_1 of it, the next u_2 of the rest, and so on."""
    left = jnp.cumprod(1 - u, -1)
    ones = jnp.ones_like(u[..., :1])
    return jnp.concatenate([u, ones], -1) * jnp.concatenate([ones, left], -1)


def to_cube(p: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    """Returns the numbers in [0, 1] of which `to_simplex` makes the parts p."""
    before = 1 - jnp.cumsum(p, -1)[..., :-1] + p[..., :-1]
    return jnp.clip(p[..., :-1] / jnp.maximum(before, 1e-12), 0, 1)


def loss(
    space: Space, network: Callable[[Array, Array], Array], x0: Float[Array, "b d"], keys: Key, least: float = 1e-3
) -> Float[Array, " b"]:
    """Returns each example's weighted error of the score, at a variance drawn between `least` and the space's most.

    Args:
      space: that x0 lies in.
      network: (x [b d], v [b]) -> score [b d].
      x0: points.
      keys: one for each.
      least: variance where sampling ends.
    """
    time, walk = (jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys) for i in range(2))
    v = least * (space.most / least) ** jax.vmap(jax.random.uniform)(time)
    x = jax.vmap(space.noised)(walk, x0, v)
    off = network(x, v) - jax.vmap(space.score)(x0, x, v)
    return v * (off * off).sum(1)
