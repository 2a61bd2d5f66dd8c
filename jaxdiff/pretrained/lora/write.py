"""Writes LoRA files with PEFT's names, which diffusers loads."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxdiff.pretrained import files
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.lora.read import Lora
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import Stored, places


def write(path: Path | str, lora: Lora, components: Mapping[str, Component]) -> None:
    """Writes one safetensors file of a LoRA or a DoRA.

    Raises:
      ValueError: if the factors are of another form, which PEFT's LoRA files cannot hold.
    """
    tensors: dict[str, np.ndarray | Stored] = {}
    for name, targets in lora.items():
        table = family(components[name].kind).rules(components[name].config, components[name].json)
        for target, factors in targets.items():
            place = next(places(target, table))
            module = f"{name}.{place.name.removesuffix('.weight')}"
            if more := factors.keys() - {"down", "up", "scale", "magnitude"}:
                raise ValueError(f"{path}: {module} has {', '.join(sorted(more))}: only LoRA and DoRA can be written")
            down, up = np.asarray(factors["down"]), np.asarray(factors["up"])
            if place.kind == "conv":
                down, up = down.reshape((1,) * (4 - down.ndim) + down.shape), up[None, None]
                tensors[f"{module}.lora_A.weight"] = down.transpose(3, 2, 0, 1)
                tensors[f"{module}.lora_B.weight"] = up.transpose(3, 2, 0, 1)
            else:
                tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = down.T, up.T
            if "magnitude" in factors:
                size = (1, -1, 1, 1) if place.kind == "conv" else (-1,)
                tensors[f"{module}.lora_magnitude_vector"] = np.asarray(factors["magnitude"]).reshape(size)
            tensors[f"{module}.alpha"] = np.asarray(factors["scale"] * up.shape[-2], np.float32)
    files.write_safetensors(path, tensors)
