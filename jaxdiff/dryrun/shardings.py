"""Shardings: what of a model is split how, what is whole on each device, and why."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff.parallel.rules import SMALLEST, path_string


class Group(NamedTuple):
    """Parameters that lie in one way.

    Attributes:
      how: 'split over fsdp', or 'whole: ...' with the reason.
      arrays: how many.
      total: their bytes in all.
      held: their bytes on a device.
      largest: path, shape and partition of the largest.
    """

    how: str
    arrays: int
    total: int
    held: int
    largest: str


def held_bytes(tree: Any) -> int:
    """Returns the bytes of a tree of shapes with shardings on one device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def all_bytes(tree: Any) -> int:
    """Returns the bytes of a tree of shapes, once."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def groups(params: Any) -> list[Group]:
    """Returns the parameters by how they lie, the largest group first."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for where, leaf in jax.tree_util.tree_leaves_with_path(params):
        found.setdefault(_how(leaf), []).append((path_string(where), leaf))
    groups = []
    for how, leaves in found.items():
        path, largest = max(leaves, key=lambda item: math.prod(item[1].shape))
        only = [leaf for _, leaf in leaves]
        text = f"{path} {list(largest.shape)} as {largest.sharding.spec}"
        groups.append(Group(how, len(leaves), all_bytes(only), held_bytes(only), text))
    return sorted(groups, key=lambda group: -group.total)


def _how(leaf: Any) -> str:
    mesh = leaf.sharding.mesh.shape
    split = sorted({str(n) for names in leaf.sharding.spec if names for n in np.atleast_1d(names) if mesh[str(n)] > 1})
    if split:
        return f"split over {' and '.join(split)}"
    if mesh["fsdp"] == 1 and mesh["tensor"] == 1:
        return "whole: the mesh splits no weights"
    if math.prod(leaf.shape) < SMALLEST:
        return f"whole: fewer than {SMALLEST} elements"
    return "whole: no dimension divides by the mesh, or its rule splits none"
