"""Bijections whose log-determinants are known, as pairs of pure functions.

With z = f(x), log p(x) = log p(z) + log |det df/dx|. `forward` is f, from data to noise, `inverse` its inverse; each
gives the logarithm of its own determinant for each example [b], so the two sum to 0. `init` sees the first batch where
it arrives, so that ActNorm can start from it. Here are those without a network, and what joins several to one.

Of the libraries that have bijectors, distrax has neither ActNorm, nor squeezing, nor a split into scales, and those of
TensorFlow Probability are made for its variables; either is a dependency for what is a few lines each here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.typing import Key, Params

Mean = Callable[[Array], Array]
"""Averages over the devices what each found of its own examples: the identity where a program sees all of them."""


class Bijector(NamedTuple):
    """A bijection.

    Attributes:
      init: (key, x, cond) -> parameters.
      forward: (parameters, x, cond) -> (z, log |det dz/dx| [b]); cond [b h w c] or None is what its networks also see.
      inverse: (parameters, z, cond) -> (x, log |det dx/dz| [b]).
      learn: `forward` in training, (parameters, x, cond, mean) -> (z, log |det dz/dx| [b], moments), by the moments of
        this batch in place of the averages under `MOVING`, which they move; None: there are none.
    """

    init: Callable[[Key, Array, Any], Params]
    forward: Callable[[Params, Array, Any], tuple[Array, Array]]
    inverse: Callable[[Params, Array, Any], tuple[Array, Array]]
    learn: Callable[[Params, Array, Any, Mean], tuple[Array, Array, Params]] | None = None

    def learning(self, params: Params, x: Array, cond: Any, mean: Mean | None) -> tuple[Array, Array, Params]:
        """Returns what `learn` does; without a `mean`, or moments, what `forward` does and no moments."""
        if mean is None or self.learn is None:
            return *self.forward(params, x, cond), {}
        return self.learn(params, x, cond, mean)


MOVING = "moving"
"""The name of parameters that a rule moves, and no gradient: averages over batches."""


def apart(tree: Params) -> tuple[Params, Params]:
    """Returns the parameters that are differentiated, and those under `MOVING`, each as a tree without the other."""
    kept, moving = {}, {}
    for name, value in tree.items():
        if name == MOVING:
            moving[name] = value
        elif isinstance(value, Mapping):
            kept[name], inner = apart(value)
            moving |= {name: inner} if inner else {}
        else:
            kept[name] = value
    return kept, moving


def joined(kept: Params, moving: Params) -> Params:
    """Returns the tree that `apart` took apart."""
    put = lambda name, value: joined(kept[name], value) if name in kept else value
    return {**kept, **{name: put(name, value) for name, value in moving.items()}}


def _nothing(key: Key, x: Array, cond: Any) -> Params:
    return {}


def _zeros(x: Array) -> Array:
    return jnp.zeros(x.shape[0])


def chain(parts: Sequence[tuple[str, Bijector]]) -> Bijector:
    """Returns one bijection after another, each with the parameters of its name."""

    def init(key: Key, x: Array, cond: Any) -> Params:
        params = {}
        for own, (name, part) in zip(jax.random.split(key, len(parts)), parts, strict=True):
            params[name] = part.init(own, x, cond)
            x, _ = part.forward(params[name], x, cond)
        return params

    def learn(params: Params, x: Array, cond: Any, mean: Mean | None = None) -> tuple[Array, Array, Params]:
        total, found = _zeros(x), dict[str, Any]()
        for name, part in parts:
            x, log_det, own = part.learning(params[name], x, cond, mean)
            total += log_det
            found |= {name: own} if own else {}
        return x, total, found

    def inverse(params: Params, z: Array, cond: Any) -> tuple[Array, Array]:
        total = _zeros(z)
        for name, part in reversed(parts):
            z, log_det = part.inverse(params[name], z, cond)
            total += log_det
        return z, total

    return Bijector(init, lambda *arguments: learn(*arguments)[:2], inverse, learn)


def swapped(part: Bijector) -> Bijector:
    """Returns the inverse bijection."""
    return Bijector(part.init, part.inverse, part.forward)


def logit(least: float) -> Bijector:
    """Returns the logit of a + (1 - 2 a) x for x in [0, 1], with a = `least` (Dinh et al. 2017, section 4.1)."""

    def forward(params: Params, x: Array, cond: Any) -> tuple[Array, Array]:
        y = least + (1 - 2 * least) * x
        z = jnp.log(y) - jnp.log1p(-y)
        return z, _logit_det(z, least)

    def inverse(params: Params, z: Array, cond: Any) -> tuple[Array, Array]:
        return (jax.nn.sigmoid(z) - least) / (1 - 2 * least), -_logit_det(z, least)

    return Bijector(_nothing, forward, inverse)


def _logit_det(z: Array, least: float) -> Array:
    each = jax.nn.softplus(z) + jax.nn.softplus(-z) + np.log(1 - 2 * least)
    return each.reshape(len(z), -1).sum(1)


def squeeze() -> Bijector:
    """Returns squares of 2x2 positions as channels.

    Raises:
      ValueError: (when called) for odd sides.
    """

    def forward(params: Params, x: Array, cond: Any) -> tuple[Array, Array]:
        b, h, w, c = x.shape
        if h % 2 or w % 2:
            raise ValueError(f"a squeeze halves both sides, and they are {h}x{w}: expected even ones")
        y = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        return y.reshape(b, h // 2, w // 2, 4 * c), _zeros(x)

    def inverse(params: Params, z: Array, cond: Any) -> tuple[Array, Array]:
        b, h, w, c = z.shape
        y = z.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
        return y.reshape(b, 2 * h, 2 * w, c // 4), _zeros(z)

    return Bijector(_nothing, forward, inverse)


def factored(first: Bijector, shape: tuple[int, ...], rest: Bijector) -> Bijector:
    """Returns `first`, then half of the channels of its result as they are and `rest` of the others, as numbers [b d].

    Source: Dinh et al. 2017, arXiv 1605.08803, section 3.6.

    Args:
      first: gives pictures.
      shape: their shape, (h, w, c).
      rest: bijector of their last channels; may itself give numbers.
    """
    half = shape[-1] // 2
    size = int(np.prod(shape[:-1])) * half

    def init(key: Key, x: Array, cond: Any) -> Params:
        one, two = jax.random.split(key)
        params = {"first": first.init(one, x, cond)}
        y, _ = first.forward(params["first"], x, cond)
        return {**params, "rest": rest.init(two, y[..., half:], cond)}

    def learn(params: Params, x: Array, cond: Any, mean: Mean | None = None) -> tuple[Array, Array, Params]:
        y, one, moments = first.learning(params["first"], x, cond, mean)
        z, two, others = rest.learning(params["rest"], y[..., half:], cond, mean)
        found = {name: own for name, own in (("first", moments), ("rest", others)) if own}
        return jnp.concatenate([y[..., :half].reshape(len(x), -1), z.reshape(len(x), -1)], 1), one + two, found

    def inverse(params: Params, z: Array, cond: Any) -> tuple[Array, Array]:
        out, left = z[:, :size].reshape(-1, *shape[:-1], half), z[:, size:]
        y, two = rest.inverse(params["rest"], left, cond)
        x, one = first.inverse(params["first"], jnp.concatenate([out, y], -1), cond)
        return x, one + two

    return Bijector(init, lambda *arguments: learn(*arguments)[:2], inverse, learn)


def flat(shape: tuple[int, ...]) -> Bijector:
    """Returns pictures of a shape (h, w, c) as numbers [b d]."""
    return Bijector(
        _nothing,
        lambda params, x, cond: (x.reshape(len(x), -1), _zeros(x)),
        lambda params, z, cond: (z.reshape(-1, *shape), _zeros(z)),
    )


def log_normal(z: Float[Array, "b d"]) -> Float[Array, " b"]:
    """Returns log N(z; 0, 1)."""
    return -(z * z + np.log(2 * np.pi)).sum(1) / 2


def log_logistic(z: Float[Array, "b d"]) -> Float[Array, " b"]:
    """Returns the log-density of standard logistics."""
    return -(jax.nn.softplus(z) + jax.nn.softplus(-z)).sum(1)
