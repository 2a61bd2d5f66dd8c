"""The protocol of every pipeline: all that previews, evaluation and the command line use."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


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
