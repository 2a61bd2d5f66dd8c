"""Weights in 8 bits: products are of the computation's own type, only what lies in memory is small.

    w ~ scale values,    scale = max |w| / largest value, one for each output channel

`dequantize` belongs inside what is compiled, where the network is called. Within a loop it is done anew for each call,
and no whole copy of the weights lives through the loop: the compiler would take out what does not change from one call
to the next, and is kept from changing that by a dependency on the network's input.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.parallel.rules import SMALLEST
from jaxdiff.typing import Params

KINDS: dict[str, Any] = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """One weight.

    Attributes:
      values: [... o], 8 bits each.
      scale: [1 ... o] float32, of each output channel.
    """

    values: Any
    scale: Any


def quantize(params: Params, kind: str) -> Params:
    """Returns parameters whose large matrices and kernels are `Quantized`.

    Vectors, norms and small ones stay as they are, and so do the first and last convolution, which see the picture.

    Args:
      params: a tree of arrays.
      kind: int8 or fp8 (e4m3).

    Raises:
      ValueError: for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown 8-bit kind {kind!r}: expected one of {', '.join(KINDS)}")

    def one(path: tuple[Any, ...], x: Array) -> Any:
        kept = x.ndim < 2 or x.size < SMALLEST or path[0].key in ("conv_in", "conv_out")
        return x if kept else _quantized(x, KINDS[kind])

    return jax.tree_util.tree_map_with_path(one, params)


def dequantize(params: Params, dtype: Any, x: Array) -> tuple[Params, Array]:
    """Returns the parameters as plain arrays, those that were 8 bits in `dtype`, and the network's input x as it is."""
    if not is_quantized(params):
        return params, x
    params, x = jax.lax.optimization_barrier((params, x))

    def one(x: Any) -> Array:
        return (x.values.astype(jnp.float32) * x.scale).astype(dtype) if _is(x) else x

    return jax.tree.map(one, params, is_leaf=_is), x


def is_quantized(params: Params) -> bool:
    """Returns whether any of the parameters is in 8 bits."""
    return any(map(_is, jax.tree.leaves(params, is_leaf=_is)))


def _is(x: Any) -> bool:
    return isinstance(x, Quantized)


def _quantized(x: Array, dtype: Any) -> Quantized:
    integers = jnp.issubdtype(dtype, jnp.integer)
    largest = float((jnp.iinfo if integers else jnp.finfo)(dtype).max)
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.abs(x).max(range(x.ndim - 1), keepdims=True), 1e-30) / largest
    values = x / scale
    return Quantized((jnp.round(values) if integers else values).astype(dtype), scale)
