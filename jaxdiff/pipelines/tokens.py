"""Pictures whose codes are drawn one after another, given a prompt: by one transformer, or an encoder and a decoder."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from jaxdiff.data.text import listing
from jaxdiff.parallel import MeshSpec
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines import inputs
from jaxdiff.sampling.tokens import Numbers
from jaxdiff.typing import Key

Draw = Callable[[Any, Any, Any, Any, Numbers], Any]
"""(weights, ids [b t], ids [t] of a prompt that is left out or None, keys [b], numbers) -> uint8 [b h w 3]."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Lists what a call may be given.

    Attributes:
      temperature: temperature of the codes' distribution; 1 is the model's own, less keeps nearer to its modes.
      top_k: draw each code from the likeliest so many; 0: from all.
      top_p: draw each code from the likeliest that hold this part of the probability.
      guidance: scale of the guidance of logits; 1 or None turns it off, at half the work.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float | None = 3.0

    def check(self) -> None:
        """Refuses numbers that make no sense."""
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: expected a number above 0")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: expected 0 (all codes) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: expected a number above 0 and at most 1")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"guidance is {self.guidance}: expected a number")


class TokenPipeline:
    """Draws pictures from prompts.

    Attributes:
      Options: what a call may be given.
      size: height and width of the pictures.
      calls: network calls that a picture takes.
      weights: what `draw` reads; previews change them.
    """

    def __init__(
        self,
        weights: Any,
        draw: Draw,
        *,
        encode: Callable[[str], np.ndarray],
        cut: Callable[[str], str],
        size: int,
        calls: int,
        options: type = Options,
        spec: Any = MeshSpec(),
        devices: Sequence[jax.Device] | None = None,
    ):
        """Compiles nothing yet.

        Args:
          weights: what `draw` reads.
          draw: draws pictures.
          encode: a prompt -> its ids, int32 [t].
          cut: a prompt -> what of it the model does not see.
          size: side of the pictures.
          calls: network calls that a picture takes.
          options: the class of what a call may be given.
          spec: how devices share a batch.
          devices: which share a batch; None: all.
        """
        self.weights, self.size, self.calls = weights, (size, size), calls
        self.Options: Any = options
        self._encode, self._cut = encode, cut

        def drawn(arguments: Any, batch: Any) -> Any:
            weights, away, numbers = arguments
            return draw(weights, batch["ids"], away, batch["keys"], numbers)

        self._draw = Spread(drawn, spec, devices)

    def __call__(
        self, prompts: str | Sequence[str], *, key: Key, options: Any = None, **fields: Any
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Draws a picture for each prompt.

        Args:
          prompts: texts; an empty one is the model's own choice.
          key: for all, or one for each.
          options: an instance of `Options`; None: all defaults.
          fields: by name, before those of `options`.

        Raises:
          ValueError: for a name that is not an option, and a number that makes no sense.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        known = {field.name for field in dataclasses.fields(self.Options)}
        if unknown := fields.keys() - known:
            raise ValueError(f"there is no option {min(unknown)!r}: expected {listing(sorted(known))}")
        options = dataclasses.replace(options or self.Options(), **fields)
        options.check()
        inputs.warn_of_cut(prompts, self._cut)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(len(prompts))) if key.ndim == 0 else key
        ids = np.stack([self._encode(prompt) for prompt in prompts])
        away = None if options.guidance in (None, 1) else self._encode("")
        top_k = np.int32(options.top_k or np.iinfo(np.int32).max)
        numbers = Numbers(*map(np.float32, (options.temperature, 0, options.top_p, options.guidance or 1)))
        return self._draw((self.weights, away, numbers._replace(top_k=top_k)), {"ids": ids, "keys": keys})

    def compiled(self) -> int:
        """Returns how many programs have been compiled so far."""
        return self._draw.compiled()
