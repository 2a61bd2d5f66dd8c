"""What a training run trains: the place where network, objective, conditioning and data meet."""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxdiff.parallel import Rules
from jaxdiff.typing import Key, LossFn, Params


@dataclasses.dataclass(frozen=True)
class Task:
    """The four functions that a training run needs; `tasks/` has one module for each kind of model.

    Attributes:
      init: (key) -> parameters, in float32.
      loss: (params, batch, keys) -> (loss, metrics), the mean over the batch; example i draws from keys[i] alone.
      preview: (params, key) -> (uint8 pictures [n, h, w, 3], their captions); None where there is nothing to look at.
      rules: sharding rules for parameters the default rules do not know, by path; see `parallel.rules`.
    """

    init: Callable[[Key], Params]
    loss: LossFn
    preview: Callable[[Params, Key], tuple[np.ndarray, list[str]]] | None = None
    rules: Rules = ()
