"""Sharding rules: which axis of the mesh splits which dimension of which parameter, chosen by the parameter's path."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import Mesh as ConcreteMesh
from jax.sharding import PartitionSpec as P

from jaxdiff.typing import Params

Mesh = ConcreteMesh | AbstractMesh
"""A mesh of devices that are here, or that are only described."""
Rule = P | Callable[[tuple[int, ...], Mesh], P]
Rules = tuple[tuple[str, Rule], ...]
"""((path pattern, PartitionSpec or function of (shape, mesh)), ...): the first that matches a whole path 'a/b/c'."""

SMALLEST = 2**14
"""Weights of fewer elements stay whole on every device: gathering them costs more than the memory they take."""


def fsdp(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Splits a large weight over fsdp, on its largest divisible dimension; the last of equals."""
    return _with_fsdp([None] * len(shape), shape, mesh)


def tensor(dim: int) -> Callable[[tuple[int, ...], Mesh], P]:
    """Returns a rule that splits dimension `dim` over tensor where it divides, and the largest other one over fsdp."""

    def rule(shape: tuple[int, ...], mesh: Mesh) -> P:
        names: list[str | None] = [None] * len(shape)
        if -len(shape) <= dim < len(shape) and shape[dim] % mesh.shape["tensor"] == 0:
            names[dim] = "tensor"
        return _with_fsdp(names, shape, mesh)

    return rule


def _with_fsdp(names: list[str | None], shape: tuple[int, ...], mesh: Mesh) -> P:
    size = 1
    for length in shape:
        size *= length
    free = [d for d, name in enumerate(names) if name is None and shape[d] % mesh.shape["fsdp"] == 0]
    if size >= SMALLEST and free:
        names[max(free, key=lambda d: (shape[d], d))] = "fsdp"
    return P(*names)


# Megatron's pairing: the first product splits its outputs (heads, MLP width), the second its inputs, so that a pair
# costs one sum over tensor. A GEGLU's doubled width is split the same way; its halves then meet across devices. A
# weight in 8 bits has two parts, below its own path.
DEFAULT_RULES: Rules = (
    (r".*/(q|k|v|k_picture|v_picture|k_context|v_context)/(kernel|bias)(/\w+)?", tensor(-1)),
    (r".*attn\w*/out/kernel(/\w+)?", tensor(0)),
    (r".*/fc1/(kernel|bias)(/\w+)?", tensor(-1)),
    (r".*/fc2/kernel(/\w+)?", tensor(0)),
    (r".*", fsdp),
)


def path_string(path: tuple[Any, ...]) -> str:
    """Writes a key path as 'a/b/c'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def param_shardings(params: Params, mesh: Mesh, rules: Rules = ()) -> Any:
    """Returns a NamedSharding for every parameter (the leaves need only a shape).

    `rules` come before the defaults, and match the paths of parameters ('down_0/attn/q/kernel').

    Raises:
      ValueError: if a rule's axes do not divide a parameter's dimensions.
    """
    table = [(re.compile(pattern), rule) for pattern, rule in (*rules, *DEFAULT_RULES)]

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_string(path)
        rule = next(rule for pattern, rule in table if pattern.fullmatch(name))
        spec = rule if isinstance(rule, P) else rule(leaf.shape, mesh)
        _check(name, leaf.shape, spec, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, params)


def shardings(state: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """Returns a NamedSharding for every leaf of a state, a dataclass with `params`.

    The rules place its parameters, and what is `frozen`. A leaf elsewhere whose path ends in a parameter's path, and
    that has its shape, goes with it: averages and moments do. All else is whole on every device.

    Raises:
      ValueError: if a rule's axes do not divide a parameter's dimensions.
    """
    placed = {
        name: param_shardings(tree, mesh, rules) for name in ("params", "frozen") if (tree := _field(state, name))
    }
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    where = jax.tree.leaves(placed.get("params", {}))
    params = {path_string(path): (leaf.shape, at) for (path, leaf), at in zip(leaves, where, strict=True)}

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = path_string(path).split("/")
        owners = (params.get("/".join(names[start:])) for start in range(len(names)))
        return next((o[1] for o in owners if o and o[0] == leaf.shape), NamedSharding(mesh, P()))

    fields = {field.name: _field(state, field.name) for field in dataclasses.fields(state)}
    rest = {name: jax.tree_util.tree_map_with_path(sharding, tree) for name, tree in fields.items()}
    return dataclasses.replace(state, **{**rest, **placed})


def _field(state: Any, name: str) -> Any:
    return getattr(state, name, None)


def _check(path: str, shape: tuple[int, ...], spec: P, mesh: Mesh) -> None:
    """Refuses what the compiler would refuse later and without the parameter's name."""
    if len(spec) > len(shape):
        raise ValueError(f"rule for {path!r}: {spec} names {len(spec)} dimensions, but the shape is {shape}.")
    for dim, names in enumerate(spec):
        for name in (names,) if isinstance(names, str) else names or ():
            if name not in mesh.shape:
                raise ValueError(f"rule for {path!r}: the mesh has no axis {name!r}; it has {', '.join(mesh.shape)}.")
        ways = 1
        for name in (names,) if isinstance(names, str) else names or ():
            ways *= mesh.shape[name]
        if shape[dim] % ways:
            raise ValueError(
                f"rule for {path!r}: dimension {dim} of shape {shape} does not split {ways} ways over {names}; "
                "use a function rule such as parallel.tensor(dim), or another mesh."
            )
