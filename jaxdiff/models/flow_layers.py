"""The layers of flows that have parameters: bijections by channel, 1x1 convolutions, couplings, autoregressions.

Sources: Dinh et al. 2015, arXiv 1410.8516 (scaling); Dinh et al. 2017, arXiv 1605.08803 (masked couplings, batch norm);
Kingma and Dhariwal 2018, arXiv 1807.03039 (ActNorm, 1x1 convolutions).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array

from jaxdiff.models.bijectors import MOVING, Bijector, Mean
from jaxdiff.models.transforms import Transform
from jaxdiff.typing import Key, Params


def actnorm() -> Bijector:
    """Returns (x + b) exp(s) a channel, which starts by giving the first batch mean 0 and variance 1."""

    def init(key: Key, x: Array, cond: Any) -> Params:
        axes = tuple(range(x.ndim - 1))
        return {"shift": -x.mean(axes), "log_scale": -jnp.log(x.std(axes) + 1e-6)}

    def forward(params: Params, x: Array, cond: Any) -> tuple[Array, Array]:
        shift, scale = params["shift"][None, None, None], params["log_scale"][None, None, None]
        return (x + shift) * jnp.exp(scale), _spread(params["log_scale"], x)

    def inverse(params: Params, z: Array, cond: Any) -> tuple[Array, Array]:
        shift, scale = params["shift"][None, None, None], params["log_scale"][None, None, None]
        return z * jnp.exp(-scale) - shift, -_spread(params["log_scale"], z)

    return Bijector(init, forward, inverse)


_LEAST = 1e-4
"""Added to a variance, as in RealNVP's code."""


def batch_norm() -> Bijector:
    """Returns (x - m) / sqrt(v + e) a channel, with mean and variance as moving averages over the batches before.

    In training they are this batch's own, through which the gradient goes: by averages alone, whose gradient is 0, the
    weights would grow faster than the averages follow, and runs diverge.

    Source: Dinh et al. 2017, arXiv 1605.08803, section 3.7 and appendix E, without the lag, as in their code.
    """

    def moments(x: Array, mean: Mean) -> Params:
        axes = tuple(range(x.ndim - 1))
        return {MOVING: {"mean": mean(x.mean(axes)), "second": mean((x * x).mean(axes))}}

    def parts(params: Params) -> tuple[Array, Array]:
        moved = params[MOVING]
        return moved["mean"], jnp.log(jnp.maximum(moved["second"] - moved["mean"] ** 2, 0) + _LEAST) / 2

    def forward(params: Params, x: Array, cond: Any) -> tuple[Array, Array]:
        mean, log_scale = parts(params)
        return (x - mean[None, None, None]) * jnp.exp(-log_scale)[None, None, None], -_spread(log_scale, x)

    def inverse(params: Params, z: Array, cond: Any) -> tuple[Array, Array]:
        mean, log_scale = parts(params)
        return z * jnp.exp(log_scale)[None, None, None] + mean[None, None, None], _spread(log_scale, z)

    def learn(params: Params, x: Array, cond: Any, mean: Mean) -> tuple[Array, Array, Params]:
        own = moments(x, mean)
        return *forward(own, x, cond), own

    return Bijector(lambda key, x, cond: moments(x, lambda own: own), forward, inverse, learn)


def scaling() -> Bijector:
    """Returns x exp(s), an s for each number (Dinh et al. 2015, section 3.3)."""

    def init(key: Key, x: Array, cond: Any) -> Params:
        return {"log_scale": jnp.zeros(x.shape[1:])}

    def det(params: Params, x: Array) -> Array:
        return jnp.full(len(x), params["log_scale"].sum())

    return Bijector(
        init,
        lambda params, x, cond: (x * jnp.exp(params["log_scale"])[None], det(params, x)),
        lambda params, z, cond: (z * jnp.exp(-params["log_scale"])[None], -det(params, z)),
    )


def _spread(log_scale: Array, x: Array) -> Array:
    """Returns the log-determinant of a channel's scale at every position."""
    return jnp.full(len(x), x.shape[1] * x.shape[2] * log_scale.sum())


def invertible_1x1(channels: int, seed: int) -> Bijector:
    """Returns W x at every position, W = P L (U + diag(sign exp(s))), which starts as a rotation drawn from `seed`.

    P and the signs stay (Kingma and Dhariwal 2018, equation 10).
    """
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((channels, channels)))[0]
    p, lower, upper = scipy.linalg.lu(rotation)
    sign, log_scale = np.sign(np.diag(upper)), np.log(np.abs(np.diag(upper)))
    low = np.tril(np.ones((channels, channels)), -1)

    def init(key: Key, x: Array, cond: Any) -> Params:
        factors = {"lower": lower * low, "upper": upper * low.T, "log_scale": log_scale}
        return {name: jnp.asarray(value, jnp.float32) for name, value in factors.items()}

    def factors(params: Params) -> tuple[Array, Array]:
        diagonal = jnp.diag(jnp.asarray(sign, jnp.float32) * jnp.exp(params["log_scale"]))
        return params["lower"] * low + np.eye(channels, dtype=np.float32), params["upper"] * low.T + diagonal

    def forward(params: Params, x: Array, cond: Any) -> tuple[Array, Array]:
        first, second = factors(params)
        return x @ (p.astype(np.float32) @ first @ second).T, _spread(params["log_scale"], x)

    def inverse(params: Params, z: Array, cond: Any) -> tuple[Array, Array]:
        first, second = factors(params)
        flat = (z.reshape(-1, channels) @ p.astype(np.float32)).T
        flat = jax.scipy.linalg.solve_triangular(first, flat, lower=True, unit_diagonal=True)
        flat = jax.scipy.linalg.solve_triangular(second, flat)
        return flat.T.reshape(z.shape), -_spread(params["log_scale"], z)

    return Bijector(init, forward, inverse)


def coupling(net: Any, mask: np.ndarray, transform: Transform) -> Bijector:
    """Returns `transform` of the numbers where the mask is 0, by what a network says of those where it is 1.

    Args:
      net: a module (x, cond) -> [b h w (c outputs)].
      mask: [h w c] of 0 and 1.
      transform: transform of each number.
    """
    kept = mask[None].astype(np.float32)

    def numbers(params: Params, x: Array, cond: Any) -> Array:
        return net.apply({"params": params}, x * kept, cond).reshape(*x.shape, transform.outputs)

    def moved(which: Any, params: Params, x: Array, cond: Any) -> tuple[Array, Array]:
        y, log_det = which(x, numbers(params, x, cond))
        return jnp.where(kept > 0, x, y), (log_det * (1 - kept)).reshape(len(x), -1).sum(1)

    def init(key: Key, x: Array, cond: Any) -> Params:
        return net.init(key, x[:1], None if cond is None else cond[:1])["params"]

    return Bijector(
        init,
        lambda params, x, cond: moved(transform.forward, params, x, cond),
        lambda params, z, cond: moved(transform.inverse, params, z, cond),
    )


def autoregressive(net: Any, order: np.ndarray, transform: Transform) -> Bijector:
    """Returns `transform` of each number by what a network says of those before it, which `inverse` takes in turn.

    Source: Papamakarios et al. 2017, arXiv 1705.07057 (MAF); swapped, Kingma et al. 2016, arXiv 1606.04934 (IAF).

    Args:
      net: a module [b h w c] -> [b h w (c outputs)] that sees earlier numbers alone.
      order: order of the numbers, the first one first.
      transform: transform of each number.
    """

    def numbers(params: Params, x: Array) -> Array:
        return net.apply({"params": params}, x).reshape(*x.shape, transform.outputs)

    def forward(params: Params, x: Array, cond: Any) -> tuple[Array, Array]:
        z, log_det = transform.forward(x, numbers(params, x))
        return z, log_det.reshape(len(x), -1).sum(1)

    def inverse(params: Params, z: Array, cond: Any) -> tuple[Array, Array]:
        def one(x: Array, at: Array) -> tuple[Array, None]:
            y, _ = transform.inverse(z, numbers(params, x))
            return x.reshape(len(x), -1).at[:, at].set(y.reshape(len(x), -1)[:, at]).reshape(x.shape), None

        x, _ = jax.lax.scan(one, jnp.zeros_like(z), jnp.asarray(order))
        return x, -forward(params, x, cond)[1]

    init = lambda key, x, cond: net.init(key, x[:1])["params"]
    return Bijector(init, forward, inverse)
