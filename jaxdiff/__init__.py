"""Diffusion models in JAX: pure functions, samplers as tables, one compiled program from prompt to picture.

Public names load on first use (PEP 562), so that importing the package costs almost nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = frozenset(
    {"cli", "data", "diffusion", "metrics", "models", "nn", "parallel", "pipelines", "pretrained", "sampling", "tasks"}
    | {"training", "typing"}
)
_NAMES = {
    "Cond": ("jaxdiff.typing", "Cond"),
    "Table": ("jaxdiff.sampling", "Table"),
    "load": ("jaxdiff.loading", "load"),
    "train": ("jaxdiff.trainer", "run"),
}

__all__ = sorted([*_MODULES, *_NAMES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"jaxdiff.{name}")
    if name in _NAMES:
        module, attribute = _NAMES[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'jaxdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
