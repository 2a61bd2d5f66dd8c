"""A model whose pictures one function draws: of every family that is no diffusion with a sampler to choose."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float, UInt8

from jaxdiff.data.text import listing
from jaxdiff.parallel import MeshSpec
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines.pipeline import once
from jaxdiff.typing import Key

Draw = Callable[[Any, Any, Any, Any], Any]
"""(weights, numbers, keys [b], label [b] or None) -> uint8 [b h w 3]; `numbers` are the options of a call by name."""
Bits = Callable[[Any, Any, Any, Any], Any]
"""(weights, uint8 [b h w 3], keys [b], label [b] or None) -> bits/dim [b]."""


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Lists what a call may be given: nothing."""


@dataclasses.dataclass(frozen=True)
class Tempered:
    """Lists what a call may be given.

    Attributes:
      temperature: temperature of the distribution that is drawn from; 1 is the model's own, less keeps nearer to its
        modes.
    """

    temperature: float = 1.0


class DirectPipeline:
    """Draws pictures.

    Attributes:
      Options: what a call may be given, all of them numbers above 0.
      size: height and width of the pictures.
      labels: names of the classes, of a model that knows classes.
      calls: network calls that a picture takes.
      weights: what `draw` reads; previews change them.
    """

    def __init__(
        self,
        weights: Any,
        draw: Draw,
        *,
        size: int,
        labels: Sequence[str] = (),
        options: type = NoOptions,
        calls: int = 1,
        spec: Any = MeshSpec(),
    ):
        """Compiles nothing yet.

        Args:
          weights: what `draw` reads.
          draw: draws pictures.
          size: side of the pictures.
          labels: names of the classes; none where the model knows no classes.
          options: the class of what a call may be given.
          calls: network calls that a picture takes.
          spec: how devices share a batch.
        """
        self.weights, self.size, self.labels = weights, (size, size), tuple(labels)
        self.Options: Any = options
        self.calls = calls
        self._spec = spec

        def drawn(arguments: Any, batch: Any) -> Any:
            weights, numbers = arguments
            return draw(weights, numbers, batch["keys"], batch.get("label"))

        self._draw = Spread(drawn, spec)

    def __call__(
        self, prompts: str | Sequence[str], *, key: Key, options: Any = None, **fields: Any
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Draws a picture for each prompt.

        Args:
          prompts: names of classes; an empty text is any class, drawn from the picture's key.
          key: for all, or one for each.
          options: an instance of `Options`; None: all defaults.
          fields: by name, before those of `options`.

        Raises:
          ValueError: for a prompt that names no class, a name that is no option, and a number that makes no sense.
        """
        return self._drawn(prompts, key, options, fields)

    def _drawn(self, prompts: str | Sequence[str], key: Key, options: Any, fields: dict[str, Any]) -> Any:
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(len(prompts))) if key.ndim == 0 else key
        batch: dict[str, Any] = {"keys": jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)}
        if self.labels:
            draw = lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, len(self.labels))
            free = np.asarray(jax.vmap(draw)(keys))
            batch["label"] = np.where([not prompt for prompt in prompts], free, self._ids(prompts)).astype(np.int32)
        else:
            self._ids(prompts)
        return self._draw((self.weights, self._numbers(options, fields)), batch)

    def _numbers(self, options: Any, fields: dict[str, Any]) -> dict[str, np.float32]:
        known = {field.name for field in dataclasses.fields(self.Options)}
        if unknown := fields.keys() - known:
            raise ValueError(f"there is no option {min(unknown)!r}: expected {listing(sorted(known)) or 'none'}")
        options = dataclasses.replace(options or self.Options(), **fields)
        for name, value in dataclasses.asdict(options).items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}: expected a number above 0")
        return {name: np.float32(value) for name, value in dataclasses.asdict(options).items()}

    def _ids(self, prompts: Sequence[str]) -> np.ndarray:
        """Returns the number of each prompt's class, 0 for an empty text."""
        if wrong := [prompt for prompt in prompts if prompt and prompt not in self.labels]:
            expected = f"one of {listing(self.labels)}" if self.labels else "no prompt, since this model reads none"
            raise ValueError(f"the prompt {wrong[0]!r} is no class of this model: expected {expected}")
        return np.array([self.labels.index(prompt) if prompt else 0 for prompt in prompts], np.int32)


P = TypeVar("P", bound=DirectPipeline)


def kept(make: Callable[[Any], P]) -> Callable[[Any], P]:
    """Returns a function of weights: the pipeline that `make` makes of the first ones, with these."""
    pipeline_of = once(make)

    def with_weights(weights: Any) -> P:
        pipeline = pipeline_of(weights)
        pipeline.weights = weights
        return pipeline

    return with_weights


class LikelihoodPipeline(DirectPipeline):
    """Draws pictures, and says how likely given ones are.

    Attributes:
      likelihood: what `bits_per_dim` gives, for reports, such as 'exact'.
    """

    def __init__(self, weights: Any, draw: Draw, bits: Bits, likelihood: str, **how: Any):
        """Compiles nothing yet.

        Args:
          weights: what `draw` and `bits` read.
          draw: draws pictures.
          bits: measures pictures.
          likelihood: what it measures.
          how: see `DirectPipeline`.
        """
        super().__init__(weights, draw, **how)
        self.likelihood = likelihood

        def measured(weights: Any, batch: Any) -> Any:
            return bits(weights, batch["image"], batch["keys"], batch.get("label"))

        self._bits = Spread(measured, self._spec)

    def bits_per_dim(
        self, images: UInt8[np.ndarray, "b h w 3"], prompts: Sequence[str], keys: Key
    ) -> Float[np.ndarray, " b"]:
        """Returns the bits/dim of pictures given their classes; what is drawn for it is drawn from keys [b].

        Raises:
          ValueError: if the pictures have another size than the model's, or a prompt names no class.
        """
        if images.shape[1:3] != self.size:
            theirs, own = ("x".join(map(str, size[::-1])) for size in (images.shape[1:3], self.size))
            raise ValueError(f"the pictures are {theirs}, the model {own}: scale them with --size")
        batch: dict[str, Any] = {"image": images, "keys": keys}
        if self.labels:
            if not all(prompts):
                raise ValueError("this model knows classes, and bits/dim are given a class: a picture has none")
            batch["label"] = self._ids(prompts)
        return np.asarray(self._bits(self.weights, batch), np.float64)
