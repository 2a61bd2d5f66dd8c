"""Fields of a model's config.json: each is honoured, known to be harmless, or refused by name."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxdiff.pretrained.rules import few

UNUSED = {
    "architectures": "the class, which is checked before",
    "model_type": "the same",
    "torch_dtype": "the weights say it",
    "dtype": "the weights say it",
    "transformers_version": "of what wrote the file",
}
"""Fields that say nothing about a network, in any file, and why; so do those that begin with an underscore."""
_NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {})
"""What an unknown field may be: off."""


@dataclasses.dataclass(frozen=True)
class Field:
    """The values that a field may have.

    Attributes:
      default: what its absence means.
      served: the values that work, in words.
      fits: whether a value is one of them.
    """

    default: Any
    served: str
    fits: Callable[[Any], bool]


Fields = Mapping[str, Field]


def whole(default: int | None, least: int = 1, most: int = 10**6) -> Field:
    """Returns a whole number."""
    words = f"a whole number from {least} to {most}"
    return Field(default, words, lambda x: isinstance(x, int) and not isinstance(x, bool) and least <= x <= most)


def number(default: float | None, least: float | None = None) -> Field:
    """Returns a finite number of at least `least`."""

    def fits(x: Any) -> bool:
        return (
            isinstance(x, int | float)
            and not isinstance(x, bool)
            and abs(x) <= 1e300  # neither NaN nor infinite, nor a whole number that no float holds
            and (least is None or x >= least)
        )

    return Field(default, "a finite number" if least is None else f"a number of at least {least:g}", fits)


def flag(default: bool) -> Field:
    """Reads true or false."""
    return Field(default, "true or false", lambda x: isinstance(x, bool))


def text(default: str) -> Field:
    """Returns a word."""
    return Field(default, "a word", lambda x: isinstance(x, str))


def one_of(*values: Any) -> Field:
    """Reads one of some values; absence means the first."""
    # isinstance: 1 equals True, and no list may be looked up by hash
    same = lambda x, v: x == v and isinstance(x, bool) == isinstance(v, bool)
    return Field(values[0], " or ".join(map(repr, values)), lambda x: any(same(x, v) for v in values))


def each(one: Field, default: Sequence[Any]) -> Field:
    """Returns a list whose members fit `one`."""
    fits = lambda x: isinstance(x, list | tuple) and 0 < len(x) <= 64 and all(map(one.fits, x))
    return Field(tuple(default), f"a list, each {one.served}", fits)


def either(*options: Field) -> Field:
    """Returns what fits one of several; absence means the first's default."""
    words = ", or ".join(option.served for option in options)
    return Field(options[0].default, words, lambda x: any(option.fits(x) for option in options))


def optional(one: Field) -> Field:
    """Returns what fits `one`, or null, which absence means."""
    return Field(None, f"{one.served}, or null", lambda x: x is None or one.fits(x))


def settle(name: str, json: Mapping[str, Any], fields: Fields, harmless: Mapping[str, str]) -> dict[str, Any]:
    """Returns every field's value: what is given, else its default.

    Args:
      name: the class the config is of, for messages.
      json: config.json.
      fields: those that matter.
      harmless: those that do not, with the reason.

    Raises:
      ValueError: names every field whose value is not served, with those that are, and unknown fields that are set.
    """
    problems = []
    for field, value in json.items():
        if field in fields and not fields[field].fits(value):
            problems.append(f"{field}={brief(value)} is not supported, only {fields[field].served}")
        known = field in fields or field in harmless or field in UNUSED or field.startswith("_")
        if not known and value not in _NOTHING:
            problems.append(f"{field}={brief(value)} is a field unknown here")
    if problems:
        raise ValueError(f"{name}: {few(problems)}")
    return {field: json.get(field, one.default) for field, one in fields.items()}


def brief(value: Any) -> str:
    """Returns the beginning of a value, for messages."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:70]}..."


def divides(name: str, field: str, parts: int, of: str, widths: Sequence[int]) -> None:
    """Refuses a number of groups or heads, `field`, that does not divide every width, the field `of`."""
    for width in widths:
        if width % parts:
            raise ValueError(f"{name}: {field} makes {parts} parts, which do not divide {of}={width}")


def same_length(name: str, full: Mapping[str, Any], first: str, *others: str) -> None:
    """Refuses lists that have not one member for each level."""
    for other in others:
        if isinstance(full[other], list | tuple) and len(full[other]) != len(full[first]):
            raise ValueError(
                f"{name}: {other} has {len(full[other])} members and {first} {len(full[first])}: expected as many"
            )


def per_level(value: Any, levels: int) -> tuple[Any, ...]:
    """Returns one value for each level: a list as it is, a single value repeated."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * levels
