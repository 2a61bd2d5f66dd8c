"""Models of what is no picture, such as sounds and texts, which pictures show and files of their own hold."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxdiff.pipelines.direct import DirectPipeline, Draw
from jaxdiff.typing import Key


class OriginalsPipeline(DirectPipeline):
    """Draws sounds or texts, and shows them.

    Attributes:
      write: (where the picture lies, what was drawn) -> the files that it writes beside it.
    """

    def __init__(
        self,
        weights: Any,
        draw: Draw,
        show: Callable[[np.ndarray], np.ndarray],
        write: Callable[[Path, np.ndarray], list[Path]],
        **how: Any,
    ):
        """Compiles nothing yet.

        Args:
          weights: what `draw` reads.
          draw: draws arrays, one a prompt.
          show: makes pictures uint8 [b h w 3] of them.
          write: see the attributes.
          how: see `DirectPipeline`.
        """
        super().__init__(weights, draw, size=1, **how)
        self._show, self.write = show, write

    def both(
        self, prompts: str | Sequence[str], *, key: Key, options: Any = None, **fields: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns pictures uint8 [b h w 3], and what they show; see `DirectPipeline`."""
        drawn = np.asarray(self._drawn(prompts, key, options, fields))
        return self._show(drawn), drawn

    def __call__(
        self, prompts: str | Sequence[str], *, key: Key, options: Any = None, **fields: Any
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Draws a sound or a text for each prompt, and returns pictures of them; see `DirectPipeline`."""
        return self.both(prompts, key=key, options=options, **fields)[0]
