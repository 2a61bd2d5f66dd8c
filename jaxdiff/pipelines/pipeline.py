"""The protocol of every pipeline: all that previews, evaluation and the command line use."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np


@runtime_checkable
class Pipeline(Protocol):
    """A model that makes pictures.

    Attributes:
      Options: a frozen dataclass whose fields are what a call may be given, with the model's own defaults.
    """

    Options: type

    def __call__(
        self, prompts: str | Sequence[str], *, key: Any, options: Any = None, latents: bool = False, **fields: Any
    ) -> Any:
        """Returns pictures uint8 [b h w 3], one for each prompt; see `DiffusionPipeline`."""
        ...


@runtime_checkable
class HasStages(Protocol):
    """A model of several, which draw one after another.

    Attributes:
      runs: where they were read; empty where that is not known.
    """

    runs: tuple[str, ...]

    def settings(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the options that each stage runs with in a call with these, as far as they are numbers or names."""
        ...


@runtime_checkable
class HasLikelihood(Protocol):
    """A model that says how likely pictures are, by a function of its own.

    Attributes:
      likelihood: what it gives, for reports, such as 'exact'.
    """

    likelihood: str

    def bits_per_dim(self, images: Any, prompts: Sequence[str], keys: Any) -> np.ndarray:
        """Bits/dim [b] of uint8 [b h w 3], given their prompts; picture i draws from keys[i] alone."""
        ...


@runtime_checkable
class HasOriginals(Protocol):
    """A model of what is no picture, such as sounds, which pictures show and files of their own hold."""

    def both(self, prompts: Sequence[str], *, key: Any, options: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns pictures uint8 [b h w 3], and what they show [b ...]."""
        ...

    def write(self, out: Path, made: np.ndarray) -> list[Path]:
        """Writes what pictures at `out` show into files beside them, and returns these."""
        ...


P = TypeVar("P")


def once(make: Callable[..., P]) -> Callable[..., P]:
    """Returns a function that makes a pipeline when it is first called, and returns that one ever after.

    So a run's previews, whose weights change, are drawn by a pipeline that compiles once.
    """
    made: list[P] = []

    def first(*arguments: Any) -> P:
        if not made:
            made.append(make(*arguments))
        return made[0]

    return first
