"""Frozen dataclasses as JSON, with an open set of kinds: a config's class is found by its tag, the name of its module.

A package (`jaxdiff.tasks`, `jaxdiff.models`) holds one module for each kind, whose class is called `Config`. Packages
of others add theirs through the entry point group of the same name. A tag is only ever looked up among these names: a
config.json by itself cannot import anything.
"""

import dataclasses
import difflib
import importlib
import importlib.metadata
import importlib.util
import json
import math
import pkgutil
import re
import types
import typing
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")

_CONFIG = re.compile(r"^(class Config\b|Config\s*[:=])", re.MULTILINE)
MOST = 2**32
"""Bounds the whole numbers of a config; beyond it, arithmetic on shapes overflows."""
_BY_BASE: dict[type, "Kinds[Any]"] = {}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Kinds(Generic[T]):
    """The kinds of one package.

    Attributes:
      package: whose modules are the kinds, and the entry point group that adds more.
      base: the class that every `Config` derives from; fields annotated with it are read and written with a tag.
    """

    package: str
    base: Any

    def __post_init__(self) -> None:
        """Makes `from_json` and `to_json` know the base."""
        _BY_BASE[self.base] = self

    def names(self) -> list[str]:
        """Returns all tags, without importing a module."""
        found = [info.name for info in self._modules() if _CONFIG.search(_source(f"{self.package}.{info.name}"))]
        return sorted({*found, *self._others()})

    def find(self, kind: str) -> type[T]:
        """Returns the class of a tag.

        Raises:
          ValueError: if there is none; lists the nearest tags first.
        """
        names = self.names()
        if kind not in names:
            near = difflib.get_close_matches(str(kind), names, n=10, cutoff=0.4)
            listed = ", ".join([*near, *(n for n in names if n not in near)][:10])
            raise ValueError(f"no kind {kind!r} in {self.package}: expected one of {listed}")
        if any(info.name == kind for info in self._modules()):
            found = importlib.import_module(f"{self.package}.{kind}").Config
        else:
            loaded = self._others()[kind].load()
            found = getattr(loaded, "Config", loaded)
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise ValueError(f"{self.package} kind {kind!r}: its Config must derive from {self.base.__name__}")
        return found

    def kind(self, config: T) -> str:
        """Returns the tag of a config.

        Raises:
          ValueError: if its module is neither in the package nor an entry point.
        """
        module = type(config).__module__
        if module.rpartition(".")[0] == self.package:
            return module.rpartition(".")[2]
        for name, entry in self._others().items():
            if entry.module == module:
                return name
        raise ValueError(
            f"{module}.{type(config).__name__} is not a kind of {self.package}, so that nothing could read it again: "
            f"add an entry point of the group {self.package!r} to its package, NAME = {module!r}"
        )

    def _modules(self) -> list[pkgutil.ModuleInfo]:
        return list(pkgutil.iter_modules(importlib.import_module(self.package).__path__))

    def _others(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {entry.name: entry for entry in importlib.metadata.entry_points(group=self.package)}


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    return getattr(spec.loader, "get_source", lambda name: "")(module) or "" if spec else ""


def to_json(config: Any) -> str:
    """Writes a config as JSON; `from_json` reads it back.

    Raises:
      ValueError: for a value that JSON cannot hold, or a class that `Kinds.kind` does not know.
    """
    return json.dumps(_plain(config), indent=2)


def from_json(kind: type[T], text: str) -> T:
    """Reads what `to_json` wrote; what it leaves out has its default.

    Raises:
      ValueError: if it is not JSON, a field is unknown, or its value is none that it may have; says the field's path.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error}") from None
    return build(kind, value)


def build(kind: type[T], value: Any) -> T:
    """Does what `from_json` does, from the values that JSON gives."""
    return _build(kind, value, "")


def _plain(value: Any, path: str = "") -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        base = next((base for base in type(value).__mro__ if base in _BY_BASE), None)
        tag = {"kind": _BY_BASE[base].kind(value)} if base else {}
        names, prefix = [field.name for field in dataclasses.fields(value)], f"{path}." if path else ""
        return tag | {name: _plain(getattr(value, name), prefix + name) for name in names}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str | int | float | Path | None):
        raise ValueError(f"{path} is {value!r}, a {type(value).__name__}: expected what a config file can hold")
    return str(value) if isinstance(value, Path) else value


def _build(kind: Any, value: Any, path: str) -> Any:
    origin, arms = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _build(arms[0], value, path)
    if isinstance(kind, type) and any(base in _BY_BASE for base in kind.__mro__):
        return _tagged(kind, value, path)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _fields(kind, value, path)
    if origin in (types.UnionType, typing.Union):
        return _any(arms, value, path)
    if origin is Literal:
        if not any(value == arm and type(value) is type(arm) for arm in arms):
            raise ValueError(f"{path} is {value!r}: expected one of {', '.join(map(str, arms))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{path} is {value!r}: expected a list")
        if arms[-1] is not Ellipsis and len(value) != len(arms):
            raise ValueError(f"{path} is {value!r}: expected a list of {len(arms)}")
        each = arms[:1] * len(value) if arms[-1] is Ellipsis else arms
        return tuple(_build(arm, item, f"{path}[{i}]") for i, (arm, item) in enumerate(zip(each, value, strict=True)))
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind is type(None) and value is None:
        return None
    integer = isinstance(value, int) and not isinstance(value, bool)
    if integer and abs(value) >= MOST:
        raise ValueError(f"{path} is {value}: expected a number below {MOST}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{path} is nan: expected {_WORDS.get(kind, 'another value')}")
    if kind is float and integer:
        return float(value)
    if kind in _WORDS and (integer if kind is int else type(value) is kind):
        return value
    raise ValueError(f"{path} is {value!r}: expected {_WORDS.get(kind, getattr(kind, '__name__', kind))}")


def _tagged(kind: Any, value: Any, path: str) -> Any:
    kinds = next(_BY_BASE[base] for base in kind.__mro__ if base in _BY_BASE)
    tag = value.get("kind") if isinstance(value, dict) else None
    if tag is not None and not isinstance(tag, str):
        raise ValueError(f"{path}.kind is {tag!r}: expected a text".lstrip("."))
    if tag is None and kind is kinds.base:
        raise ValueError(f"{path or 'the config'} has no field 'kind': expected one of {', '.join(kinds.names()[:10])}")
    try:
        found = kind if tag is None else kinds.find(tag)
    except ValueError as error:
        raise ValueError(f"{path}.kind: {error}".lstrip(".")) from None
    if not issubclass(found, kind):
        raise ValueError(f"{path}.kind is {tag!r}, a {found.__name__}: expected a {kind.__name__}".lstrip("."))
    return _fields(found, {k: v for k, v in value.items() if k != "kind"} if tag is not None else value, path)


def _fields(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{path or 'the config'} is {value!r}: expected an object with the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{path}." if path else ""
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            raise ValueError(f"unknown config field {prefix}{name}" + (f": did you mean {near[0]}?" if near else ""))
    nothing = dataclasses.MISSING
    for name, field in fields.items():
        if name not in value and field.default is nothing and field.default_factory is nothing:
            raise ValueError(f"{prefix}{name} is missing from the config")
    return kind(**{name: _build(hints[name], item, prefix + name) for name, item in value.items()})


def _any(arms: tuple[Any, ...], value: Any, path: str) -> Any:
    """Reads the first arm of a union that the value fits; None fits None alone."""
    if value is None and type(None) in arms:
        return None
    errors = []
    for arm in arms:
        if arm is not type(None):
            try:
                return _build(arm, value, path)
            except ValueError as error:
                errors.append(str(error))
    raise ValueError("; or ".join(dict.fromkeys(errors)))
