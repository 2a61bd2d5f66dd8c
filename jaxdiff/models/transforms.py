"""Monotone functions of one number, by numbers that a network says: what couplings and autoregressive flows apply.

    additive   y = x + t
    affine     y = x exp(s) + t,    s = 2 tanh(a / 2)
    spline     piecewise ratios of quadratics on [-B, B], the identity outside

With a bin of width w and height h, slope m = h / w, derivatives d0 and d1 at its ends and u = (x - x0) / w in [0, 1]:

    y = y0 + h (m u^2 + d0 u (1 - u)) / (m + (d0 + d1 - 2 m) u (1 - u))

All start as the identity where the network says 0.

Sources: Dinh et al. 2015, arXiv 1410.8516 (additive); Dinh et al. 2017, arXiv 1605.08803 (affine); Durkan et al. 2019,
arXiv 1906.04032, equations 4 to 8 (spline).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Transform(NamedTuple):
    """A monotone function of one number.

    Attributes:
      outputs: numbers that say it.
      forward: (x [*s], numbers [*s outputs]) -> (y, log dy/dx), both [*s].
      inverse: (y, numbers) -> (x, log dx/dy).
    """

    outputs: int
    forward: Callable[[Array, Array], tuple[Array, Array]]
    inverse: Callable[[Array, Array], tuple[Array, Array]]


def additive() -> Transform:
    """Returns y = x + t."""
    return Transform(1, lambda x, p: (x + p[..., 0], 0 * x), lambda y, p: (y - p[..., 0], 0 * y))


def affine() -> Transform:
    """Returns y = x exp(s) + t with s between -2 and 2."""
    scale = lambda p: 2 * jnp.tanh(p[..., 0] / 2)
    return Transform(
        2,
        lambda x, p: (x * jnp.exp(scale(p)) + p[..., 1], scale(p)),
        lambda y, p: ((y - p[..., 1]) * jnp.exp(-scale(p)), -scale(p)),
    )


_LEAST = 1e-3
"""The least width and height of a bin, as a part of all, and the least derivative."""
_ONE = float(np.log(np.expm1(1 - _LEAST)))
"""The number of which softplus, plus the least derivative, makes 1."""


def spline(bins: int, bound: float = 6.0) -> Transform:
    """Returns a monotone rational-quadratic spline of so many bins on [-bound, bound]."""

    def knots(p: Array) -> Array:
        part = _LEAST + (1 - _LEAST * bins) * jax.nn.softmax(p)
        inner = jnp.cumsum(part, -1)[..., :-1] * 2 * bound - bound
        ends = jnp.full_like(p[..., :1], bound)
        return jnp.concatenate([-ends, inner, ends], -1)

    def found(x: Array, p: Array, inverse: bool) -> tuple[Array, ...]:
        """Returns the bin of each number: its left end, width, lower end, height and derivatives."""
        at, up, slopes = knots(p[..., :bins]), knots(p[..., bins : 2 * bins]), p[..., 2 * bins :]
        slopes = jnp.pad(_LEAST + jax.nn.softplus(slopes + _ONE), [(0, 0)] * x.ndim + [(1, 1)], constant_values=1.0)
        which = (x[..., None] >= (up if inverse else at)[..., 1:-1]).sum(-1, keepdims=True)
        take = lambda table, off=0: jnp.take_along_axis(table, which + off, -1)[..., 0]
        x0, y0 = take(at), take(up)
        return x0, take(at, 1) - x0, y0, take(up, 1) - y0, take(slopes), take(slopes, 1)

    def log_slope(u: Array, m: Array, d0: Array, d1: Array) -> Array:
        below = m + (d0 + d1 - 2 * m) * u * (1 - u)
        above = m * m * (d1 * u * u + 2 * m * u * (1 - u) + d0 * (1 - u) ** 2)
        return jnp.log(above) - 2 * jnp.log(below)

    def forward(x: Float[Array, "*s"], p: Float[Array, "*s o"]) -> tuple[Array, Array]:
        inside = jnp.abs(x) < bound
        x0, w, y0, h, d0, d1 = found(jnp.where(inside, x, 0.0), p, False)
        m, u = h / w, jnp.clip((jnp.where(inside, x, 0.0) - x0) / w, 0.0, 1.0)
        y = y0 + h * (m * u * u + d0 * u * (1 - u)) / (m + (d0 + d1 - 2 * m) * u * (1 - u))
        return jnp.where(inside, y, x), jnp.where(inside, log_slope(u, m, d0, d1), 0.0)

    def inverse(y: Float[Array, "*s"], p: Float[Array, "*s o"]) -> tuple[Array, Array]:
        inside = jnp.abs(y) < bound
        x0, w, y0, h, d0, d1 = found(jnp.where(inside, y, 0.0), p, True)
        m, v = h / w, jnp.where(inside, y, 0.0) - y0
        more = d0 + d1 - 2 * m
        a, b, c = h * (m - d0) + v * more, h * d0 - v * more, -m * v
        root = jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0.0))
        u = jnp.clip(2 * c / (-b - root), 0.0, 1.0)
        return jnp.where(inside, x0 + u * w, y), jnp.where(inside, -log_slope(u, m, d0, d1), 0.0)

    return Transform(3 * bins - 1, forward, inverse)
