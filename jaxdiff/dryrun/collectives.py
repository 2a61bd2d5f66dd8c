"""Collectives, the traffic between devices: estimated from shardings, or read from a compiled program."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
}
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_CALL = re.compile(rf"= (\(?[^=]*?) ({_KINDS})(-start)?\(")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def estimate(params: Any, parts: int = 1) -> dict[str, float]:
    """Returns the bytes of each kind of collective of one training step, as one device holds them, from shardings.

    A weight that is split over fsdp is gathered for the forward and the backward pass, in each of the `parts` that a
    batch is worked through in, and its gradient is scattered; what copies remain are reduced. Sums over `tensor`, whose
    sizes are those of activations, are not in it.

    Args:
      params: the trained parameters' shapes, with shardings.
      parts: see `TrainConfig.accumulate`.
    """
    found: Counter[str] = Counter()
    for leaf in jax.tree.leaves(params):
        mesh = leaf.sharding.mesh.shape
        axes = {name for names in leaf.sharding.spec if names for name in np.atleast_1d(names)}
        held = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        if "fsdp" in axes and mesh["fsdp"] > 1:
            found["all-gather"] += 2 * parts * held * mesh["fsdp"]
            found["reduce-scatter"] += parts * held * mesh["fsdp"]
        copies = mesh["data"] * (1 if "fsdp" in axes else mesh["fsdp"])
        if copies > 1:
            found["all-reduce"] += held
    return {kind: float(count) for kind, count in found.items()}


def gathers(params: Any) -> dict[str, float]:
    """Returns the bytes that sampling gathers at least: each weight that is split over fsdp once."""
    found = estimate(params)
    return {"all-gather": found["all-gather"] / 2} if "all-gather" in found else {}


def read(hlo: str) -> dict[str, float]:
    """Returns the bytes of each kind of collective in the text of a compiled program, the body of a loop once.

    A gather counts with what it returns, all others with what they return too; a `-start` returns its argument beside
    the result, of which the larger counts.
    """
    found: Counter[str] = Counter()
    for shapes, kind, start in _CALL.findall(hlo):
        sizes = [
            _BYTES.get(dtype, 4) * math.prod(map(int, filter(None, dims.split(","))))
            for dtype, dims in _SHAPE.findall(shapes)
            if dtype in _BYTES
        ]
        found[kind] += max(sizes, default=0) if start else sum(sizes)
    return {kind: float(count) for kind, count in found.items()}


def sent(found: Mapping[str, float], ways: int) -> float:
    """Returns the bytes that one device must send at least for these, by rings over `ways` devices."""
    if ways < 2:
        return 0.0
    once = (ways - 1) / ways
    factors = {"all-reduce": 2 * once, "all-gather": once, "reduce-scatter": once, "all-to-all": once}
    return sum(factors.get(kind, 1.0) * size for kind, size in found.items())
