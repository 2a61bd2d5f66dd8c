"""All that training knows of a model: a task is functions and rules, and nothing of what they are made of."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxdiff.parallel.rules import Rules
from jaxdiff.training.optimizer import OptimizerConfig
from jaxdiff.typing import Array, Batch, Key, Metrics, Params


class Variables(NamedTuple):
    """The arrays of a model.

    Attributes:
      params: are differentiated, and moved by the optimizer.
      frozen: are constant, and never saved: `Task.load` reads them again.
      extra: are moved by `Task.absorb`: codebooks, statistics of batches.
    """

    params: Any
    frozen: Any = {}  # noqa: RUF012 (never changed)
    extra: Any = {}  # noqa: RUF012


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Known:
    """The arrays that a loss may read beside the parameters; nothing of it is differentiated.

    Attributes:
      frozen: see `Variables`.
      extra: see `Variables`.
      ema: the average of the parameters.
      step: updates done before this one.
    """

    frozen: Any
    extra: Any
    ema: Any
    step: Any


LossFn = Callable[[Any, Known, Batch, Key], tuple[Array, Metrics, Any]]
"""(params, known, batch, keys [b]) -> (loss [], metrics, stats): pure. All three are means over the examples, and
example i draws from keys[i] alone: so they are the same however the batch is split."""


class Preview(NamedTuple):
    """A preview of a run, images or sounds, written as samples/NAME/STEP.png; of sounds, as spectrograms and WAV files.

    Attributes:
      arrays: uint8 [n h w c] images, or float [n samples] sounds.
      captions: one for each.
      kind: what the arrays are.
      rate: samples of a sound in a second.
    """

    arrays: np.ndarray
    captions: tuple[str, ...]
    kind: Literal["image", "sound"] = "image"
    rate: int = 16_000


def nothing(place: Callable[[Params], Any]) -> Params:
    """Loads no weights."""
    return {}


def keep(extra: Any, stats: Any) -> Any:
    """Leaves `extra` as it is."""
    return extra


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The model that a training run trains.

    Attributes:
      init: (key, loaded, first batch) -> `Variables`, with float32 parameters.
      loss: see `LossFn`.
      example: (example of the source, its generator) -> its row of the batch, one array for each name; on the host.
      load: (place) -> weights to start from; `place` turns a tree of shapes into the tree of shardings to read it to.
      held_out: the loss of held-out examples; None: `loss`.
      summary: (stats of the held-out loss, averaged over its batches, on the host) -> metrics that are no means over
        examples.
      absorb: (extra, stats) -> extra, once a step.
      groups: ((path pattern, optimizer), ...) for the parameters whose whole path 'a/b/c' matches, the first that does;
        all others have the run's own optimizer.
      averaged: names at the top of the parameters that the average follows; (): all.
      rules: sharding rules for parameters that the default rules do not know; see `parallel.rules`.
      previews: name -> (variables with averaged parameters, key) -> `Preview`; every process calls them.
    """

    init: Callable[[Key, Params, Batch], Variables]
    loss: LossFn
    example: Callable[[Any, np.random.Generator], Mapping[str, np.ndarray]]
    load: Callable[[Callable[[Params], Any]], Params] = nothing
    held_out: LossFn | None = None
    summary: Callable[[Any], Mapping[str, float]] | None = None
    absorb: Callable[[Any, Any], Any] = keep
    groups: tuple[tuple[str, OptimizerConfig], ...] = ()
    averaged: tuple[str, ...] = ()
    rules: Rules = ()
    previews: Mapping[str, Callable[[Variables, Key], Preview]] = dataclasses.field(default_factory=dict)
