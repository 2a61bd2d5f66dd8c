"""LoRA files: small changes to the weights of a U-Net and text encoders, in the layouts of all trainers.

A file changes some parameters W to W + weight change(W). `forms` has the formulas (LoRA, LoHa, LoKr, DoRA, ...),
`names` what a module may be called, `adapter_config` what PEFT notes beside the tensors. `read` gives factors by our
parameters' paths; `merge` adds any number of them to parameters. `merge` is a pure function: called once it fuses;
called inside a compiled program, with the weights as arguments, it keeps them live.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdiff.pretrained.lora.forms import change
from jaxdiff.pretrained.lora.read import Lora, read
from jaxdiff.pretrained.lora.write import write
from jaxdiff.pretrained.rules import flatten, unflatten
from jaxdiff.typing import Params

__all__ = ["Lora", "merge", "parse", "read", "write"]

Spec = str | Path | tuple[str | Path, float]


def parse(specs: Sequence[Spec] | Mapping[str | Path, float]) -> list[tuple[Path, float]]:
    """Returns the files of some LoRAs and how much each counts; the weights of a file that is given twice add up.

    Args:
      specs: each PATH, "PATH:WEIGHT" or (path, weight); or a mapping from path to weight. The weight is 1 by default.

    Raises:
      ValueError: if a weight is not a finite number.
    """
    found: dict[Path, tuple[Path, float]] = {}
    for spec in specs.items() if isinstance(specs, Mapping) else specs:
        path, weight = _split(spec) if isinstance(spec, str | Path) else spec
        path = Path(path)
        if not math.isfinite(weight):
            raise ValueError(f"the LoRA {path} has the weight {weight!r}: expected a finite number")
        first, before = found.get(path.resolve(), (path, 0.0))
        found[path.resolve()] = (first, before + weight)
    return [*found.values()]


def _split(spec: str | Path) -> tuple[Path, float]:
    path, colon, weight = str(spec).rpartition(":")
    if colon and path and not Path(spec).exists():
        try:
            return Path(path), float(weight)
        except ValueError:  # the colon is the path's own
            pass
    return Path(spec), 1.0


def merge(params: Params, loras: Sequence[Mapping[str, Mapping[str, Any]]], weights: Any) -> Params:
    """Adds LoRAs to the parameters of one component.

    Each changes the parameters as they are in `params`, so that their order does not matter.

    Args:
      params: the component's.
      loras: for each LoRA what it has for this component (`lora.get("unet", {})`).
      weights: [n]: how much of each; may be traced.
    """
    base = dict(flatten(params))
    sums: dict[str, Any] = {}
    for n, lora in enumerate(loras):
        for path, factors in lora.items():
            sums[path] = sums.get(path, 0.0) + weights[n] * change(factors, base[path])
    return unflatten(
        {path: (x.astype(jnp.float32) + sums[path]).astype(x.dtype) if path in sums else x for path, x in base.items()}
    )
