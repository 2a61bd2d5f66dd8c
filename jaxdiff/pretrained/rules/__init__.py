"""Names of tensors in other libraries' checkpoints, and ours: one table for each family of models, used both ways.

A `Rule` pairs a module of theirs with one of ours and says of what kind it is; `{}` stands for the same number on both
sides. The kind says how leaves are named and laid out:

    kind    theirs                        ours
    conv    weight [o, i, k, l], bias     kernel [k, l, i, o] (or [i, o], where k = l = 1), bias
    dense   weight [o, i], bias           kernel [i, o], bias
    heads   _weight [3 o, i], _bias       q, k and v, each a dense layer: theirs is one product
    norm    weight, bias                  scale, bias
    embed   weight [n, d]                 embedding [n, d]
    same    one array                     the same array
    skip    arrays                        nothing: what they hold is not needed; here `*` stands for anything

The first rule that fits a parameter says how it is written; reading takes the first whose tensor is there.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import ml_dtypes  # noqa: F401  (gives NumPy bfloat16 and float8)
import numpy as np

from jaxdiff.typing import Params

_LEAVES = {
    "conv": {"kernel": ".weight", "bias": ".bias"},
    "dense": {"kernel": ".weight", "bias": ".bias"},
    "heads": {"kernel": "_weight", "bias": "_bias"},
    "norm": {"scale": ".weight", "bias": ".bias"},
    "embed": {"embedding": ".weight"},
}
_HEADS = ("q", "k", "v")


@dataclasses.dataclass(frozen=True)
class Rule:
    """The module `theirs` ("down_blocks.{}.conv1") is `ours` ("down_{}/conv1"); the module docstring has the kinds."""

    theirs: str
    ours: str
    kind: str


Rules = tuple[Rule, ...]


class TensorError(ValueError):
    """Tensors that do not fit a model; the message lists names and shapes that are wrong, and how many there are."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array that is made when it is asked for (`np.asarray`): a checkpoint is never held as a whole."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.read() if dtype is None else self.read().astype(dtype, copy=False)


Tensors = Mapping[str, np.ndarray | Stored]


def few(names: Iterable[str], most: int = 10, room: int = 400) -> str:
    """Returns the first of many names, for a message: at most `most`, within about `room` letters.

    The rest is counted.
    """
    names, shown = list(names), list[str]()
    for name in names[:most]:
        short = name if len(name) <= 160 else f"{name[:150]}..."
        if shown and len(", ".join([*shown, short])) > room:
            break
        shown.append(short)
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def under(theirs: str, ours: str, rules: Iterable[Rule]) -> Rules:
    """Returns the rules of a part, as rules of the whole."""
    return tuple(
        Rule(".".join(filter(None, (theirs, r.theirs))), "/".join(filter(None, (ours, r.ours))), r.kind) for r in rules
    )


def flatten(params: Params) -> dict[str, Any]:
    """Returns the leaves of a tree of nested dicts by path 'a/b/c'."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree whose leaves lie at paths 'a/b/c'."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of our parameter in a checkpoint of theirs: the whole of `name`, or one of q, k, v of it."""

    name: str
    kind: str
    leaf: str
    part: str = ""

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of their tensor, given ours."""
        if self.leaf != "kernel":
            return (3 * ours[0],) if self.part else ours
        *window, i, o = ours
        if self.kind == "conv":
            return (o, i, *(window or (1, 1)))
        return (3 * o if self.part else o, i)

    def read(self, tensor: np.ndarray | Stored, shape: tuple[int, ...]) -> np.ndarray:
        """Returns our array, of `shape`, from their tensor.

        Raises:
          TensorError: if it holds numbers that are not finite.
        """
        x = np.asarray(tensor)
        check_finite(self.name, x)
        if self.part:
            x = np.split(x, 3)[_HEADS.index(self.part)]
        if self.leaf == "kernel":
            x = x.transpose(2, 3, 1, 0) if self.kind == "conv" else x.reshape(x.shape[:2]).T
        return x.reshape(shape)

    def write(self, x: np.ndarray) -> np.ndarray:
        """Returns their tensor (or its part) from our array."""
        if self.leaf != "kernel":
            return x
        return x.reshape((1,) * (4 - x.ndim) + x.shape).transpose(3, 2, 0, 1) if self.kind == "conv" else x.T


def places(path: str, rules: Rules) -> Iterator[Place]:
    """Yields the places where the parameter at `path` may lie, the preferred one first."""
    module, _, leaf = path.rpartition("/")
    above, _, part = module.rpartition("/")
    for rule in rules:
        prefix = {"same": path, "heads": above}.get(rule.kind, module)
        match = _pattern(rule.ours).fullmatch(prefix)
        if not match or rule.kind == "skip":
            continue
        name = rule.theirs.format(*match.groups())
        if rule.kind == "same":
            yield Place(name, rule.kind, "")
        elif leaf in _LEAVES[rule.kind] and (rule.kind != "heads" or part in _HEADS):
            yield Place(name + _LEAVES[rule.kind][leaf], rule.kind, leaf, part if rule.kind == "heads" else "")


@functools.lru_cache(2**14)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\{\}", r"(\d+)").replace(r"\*", ".*"))


def from_tensors(
    tensors: Tensors,
    shapes: Params,
    rules: Rules,
    put: Callable[[str, np.ndarray], Any] = lambda path, x: x,
) -> Params:
    """Returns our parameters from a checkpoint's tensors.

    Everything is checked before the first tensor is read. The largest are read first, so that what one of them needs
    in passing is never added to a nearly full memory.

    Args:
      tensors: arrays by their names; `Stored` ones are read one at a time.
      shapes: the tree of our parameters; leaves have a `shape`.
      rules: the table of this family.
      put: makes the final array of a parameter from its path and a NumPy array; casts, moves to a device.

    Raises:
      TensorError: lists tensors that are missing, not expected, of a wrong shape or not finite, and rules' gaps.
    """
    wanted = {path: tuple(leaf.shape) for path, leaf in flatten(shapes).items()}
    found: dict[str, Place] = {}
    problems: list[str] = []
    for path, shape in wanted.items():
        options = list(places(path, rules))
        place = next((p for p in options if p.name in tensors), None)
        if not options:
            problems.append(f"no rule: {path} {shape}")
        elif place is None:
            problems.append(f"missing: {options[0].name} {options[0].shape(shape)}")
        else:
            expected, actual = place.shape(shape), tuple(tensors[place.name].shape)
            if actual != expected and not (place.kind == "dense" and actual == (*expected, 1, 1)):
                problems.append(f"wrong shape: {place.name} is {actual}, expected {expected}")
            found[path] = place
    used = {place.name for place in found.values()}
    skip = [_pattern(rule.theirs) for rule in rules if rule.kind == "skip"]
    for name in tensors:
        if name not in used and not any(pattern.fullmatch(name) for pattern in skip):
            problems.append(f"unexpected: {name} {tuple(tensors[name].shape)}")
    if problems:
        raise TensorError(f"{len(problems)} tensors do not fit this model: {few(problems)}")
    order = sorted(found, key=lambda path: -int(np.prod(wanted[path])))
    params = {path: put(path, found[path].read(tensors[found[path].name], wanted[path])) for path in order}
    return unflatten({path: params[path] for path in wanted})


def check_finite(name: str, x: np.ndarray) -> None:
    """Refuses a tensor with numbers that are not finite: a damaged file would make black pictures.

    Raises:
      TensorError: names the tensor, and says how many of its numbers are not.
    """
    if not jax.dtypes.issubdtype(x.dtype, np.inexact):
        return
    flat = x.reshape(-1, order="A")  # as it lies in memory
    bad = sum(int((~np.isfinite(flat[i : i + 2**20])).sum()) for i in range(0, flat.size, 2**20))
    if bad:
        raise TensorError(f"{name} is damaged: {bad} of its {x.size} numbers are not finite")


def to_tensors(params: Params, rules: Rules) -> dict[str, Stored]:
    """Returns a checkpoint's tensors from our parameters; each is made when it is read.

    Raises:
      TensorError: lists parameters that no rule names.
    """
    groups: dict[str, list[tuple[Place, Any]]] = {}
    problems = []
    for path, leaf in flatten(params).items():
        place = next(places(path, rules), None)
        if place is None:
            problems.append(f"no rule: {path} {leaf.shape}")
        else:
            groups.setdefault(place.name, []).append((place, leaf))
    if problems:
        raise TensorError(f"{len(problems)} parameters have no name there: {few(problems)}")
    return {name: _stored(group) for name, group in groups.items()}


def _stored(group: list[tuple[Place, Any]]) -> Stored:
    group = sorted(group, key=lambda member: _HEADS.index(member[0].part) if member[0].part else 0)

    def read() -> np.ndarray:
        parts = [place.write(np.asarray(leaf)) for place, leaf in group]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    place, leaf = group[0]
    return Stored(place.shape(tuple(leaf.shape)), np.dtype(leaf.dtype), read)
