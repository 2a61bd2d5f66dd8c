"""Writes LoRA files with PEFT's names, which diffusers loads, or with those of kohya's scripts.

Kohya's scripts name the modules of SDXL's U-Net after the original code, and all others after diffusers. Their files
have an alpha for each module; diffusers takes none among PEFT's names, and a scale of 1, so that there the scale is
multiplied into the second factor. The magnitudes of a DoRA in kohya's layout lie as LyCORIS has them; diffusers leaves
those out, with a warning, and wants its own layout.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxdiff.pretrained import files
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.lora.read import Lora
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import Stored, compvis, places

LAYOUTS = ("diffusers", "kohya")


def write(
    path: Path | str,
    lora: Lora,
    components: Mapping[str, Component],
    layout: str = "diffusers",
    note: Mapping[str, str] | None = None,
) -> None:
    """Writes one safetensors file of a LoRA or a DoRA.

    Args:
      path: the file.
      lora: its factors.
      components: the networks it is for.
      layout: one of `LAYOUTS`.
      note: strings to carry beside the tensors.

    Raises:
      ValueError: if the factors are of another form, which such files cannot hold, or the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r} of a LoRA: expected one of {', '.join(LAYOUTS)}")
    kohya, xl = layout == "kohya", "text_encoder_2" in components
    down_of, up_of = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
    tensors: dict[str, np.ndarray | Stored] = {}
    for name, targets in lora.items():
        one = components[name]
        table = family(one.kind).rules(one.config, one.json)
        named = compvis.unet_rules(one.config, one.json) if kohya and xl and name == "unet" else table
        for target, factors in targets.items():
            place = next(places(target, table))
            module = next(places(target, named)).name.removesuffix(".weight")
            module = f"{_kohya(name, xl)}_{module.replace('.', '_')}" if kohya else f"{name}.{module}"
            if more := factors.keys() - {"down", "up", "scale", "magnitude"}:
                raise ValueError(f"{path}: {module} has {', '.join(sorted(more))}: only LoRA and DoRA can be written")
            down, up = np.asarray(factors["down"]), np.asarray(factors["up"])
            up = up if kohya else (up * np.asarray(factors["scale"])).astype(up.dtype)
            rank, conv = len(up), place.kind == "conv"
            if conv:
                down, up = down.reshape((1,) * (4 - down.ndim) + down.shape), up[None, None]
                down, up = down.transpose(3, 2, 0, 1), up.transpose(3, 2, 0, 1)
            else:
                down, up = down.T, up.T
            tensors[f"{module}.{down_of}.weight"], tensors[f"{module}.{up_of}.weight"] = down, up
            if "magnitude" in factors:
                # PEFT takes it with ".weight" or without; transformers, which reads text encoders, with it alone
                peft = "lora_magnitude_vector" + (".weight" if name.startswith("text_encoder") else "")
                role = "dora_scale" if kohya else peft
                each = (-1, *(1,) * (down.ndim - 1)) if kohya else (1, -1, 1, 1) if conv else (-1,)
                tensors[f"{module}.{role}"] = np.asarray(factors["magnitude"]).reshape(each)
            if kohya:
                tensors[f"{module}.alpha"] = np.asarray(factors["scale"] * rank, np.float32)
    files.write_safetensors(path, tensors, note)


def _kohya(name: str, xl: bool) -> str:
    """Returns what kohya's scripts call a component."""
    first = "lora_te1" if xl else "lora_te"
    return {"unet": "lora_unet", "text_encoder": first, "text_encoder_2": "lora_te2"}[name]
