"""What a model's config.json says: known fields with defaults, and values that no code here serves."""

from collections.abc import Mapping
from typing import Any

UNUSED = frozenset({"architectures", "model_type", "torch_dtype", "dtype", "transformers_version"})
"""Fields that say nothing about a network, in any file."""


def settle(
    name: str, given: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """`defaults` updated by `given`.

    Args:
      name: the class the config is of, for messages.
      given: config.json.
      defaults: every field that matters, with the value that its absence means.
      fixed: fields of which only some values are served; absence means the first.

    Raises:
      ValueError: lists every field whose value is not served, with those that are, and unknown fields that are set.
    """
    problems = []
    for field, value in given.items():
        if field in fixed and value not in fixed[field]:
            served = " or ".join(repr(v) for v in fixed[field])
            problems.append(f"{field}={value!r} is not supported, only {served}")
        known = field in fixed or field in defaults or field in UNUSED or field.startswith("_")
        if not known and value not in (None, False, 0):
            problems.append(f"{field}={value!r} is a field unknown here")
    if problems:
        raise ValueError(f"{name}: " + "; ".join(problems))
    return {**defaults, **{field: values[0] for field, values in fixed.items()}, **given}


def per_level(value: Any, levels: int) -> tuple[Any, ...]:
    """One value for each level: a list as it is, a single value repeated."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * levels
