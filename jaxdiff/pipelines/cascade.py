"""A cascade: a small picture from the prompt, which later stages make larger (Imagen, DeepFloyd IF)."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxdiff.pipelines import inputs
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.typing import Key

_FIRST = ("init_noise", "image", "mask", "height", "width", "strength")
"""Options of the first stage alone: those after it start from its picture."""


class Cascade:
    """Stages that are called one after another; pictures between them stay on their devices, as float32 in [-1, 1].

    A prompt, a negative prompt and the number of steps are for all; the other options of the first stage are its own,
    and the later ones have `noise_level` and their own guidance, unless it is given; those that their authors do not
    guide never are. What the first fills, a later one that fills does too.

    Attributes:
      stages: the pipelines; all but the first enlarge.
      Options: what a call may be given.

    Source: Ho et al. 2021, arXiv 2106.15282 (cascades); Saharia et al. 2022, arXiv 2205.11487.
    """

    def __init__(self, stages: Sequence[DiffusionPipeline]):
        """Takes stages, which may share their text encoder's weights.

        Raises:
          ValueError: if there are none, the first enlarges, or a later one does not make larger pictures.
        """
        if not stages:
            raise ValueError("a cascade of no stage: expected one that makes pictures, and those that enlarge them")
        if stages[0].model.enlarges:
            raise ValueError("stage 1 enlarges pictures: expected one that makes them; put the stage before it first")
        for n, stage in enumerate(stages[1:], 2):
            if not stage.model.enlarges:
                raise ValueError(f"stage {n} makes pictures of its own: expected one that enlarges those before it")
        for n, (before, stage) in enumerate(itertools.pairwise(stages), 2):
            (h, w), (small_h, small_w) = stage.size, before.size
            if stage.model.factor == 1 and (h <= small_h or w <= small_w):
                raise ValueError(
                    f"stage {n} makes pictures of {h}x{w}, and the one before it of {small_h}x{small_w}: expected "
                    "larger ones"
                )
        self.stages = tuple(stages)
        own = [(f.name, f.type, f) for f in dataclasses.fields(stages[0].Options)]
        level = [(f.name, f.type, f) for f in dataclasses.fields(stages[-1].Options) if f.name == "noise_level"]
        fields = [(name, kind, dataclasses.field(default=f.default)) for name, kind, f in (*own, *level)]
        doc = {"__doc__": stages[0].Options.__doc__}
        self.Options = dataclasses.make_dataclass("Options", fields, frozen=True, namespace=doc)

    def __call__(
        self, prompts: str | Sequence[str], *, key: Any, options: Any = None, latents: bool = False, **fields: Any
    ) -> Any:
        """Returns pictures uint8 [b h w 3] of the last stage, one for each prompt; see `DiffusionPipeline`.

        Each stage draws from its own part of the keys.

        Raises:
          ValueError: for options that a stage does not take; nothing has been compiled then by that stage.
        """
        prompts, keys = inputs.prompts(prompts), inputs.check_key(key)
        given = {} if options is None else {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
        default = {f.name: f.default for f in dataclasses.fields(self.Options)}
        given = {name: value for name, value in given.items() if value is not default.get(name)} | fields
        picture: Any = None
        for n, stage in enumerate(self.stages):
            takes = {f.name for f in dataclasses.fields(stage.Options)}
            later = {name: value for name, value in given.items() if name in takes and name not in _FIRST}
            if stage.guidance is None:
                later.pop("guidance", None)
            if stage.model.fills:
                later |= {"original": given.get("image"), "mask": given.get("mask")}
            own = {**later, "image": picture} if n else {k: v for k, v in given.items() if k != "noise_level"}
            last = n == len(self.stages) - 1
            picture = stage(prompts, key=_part(keys, n), latents=latents, on_device=not last, **own)
        return picture

    def compiled(self) -> int:
        """Counts the programs that have been compiled for all stages."""
        return sum(stage.compiled() for stage in self.stages)


def _part(key: Key, n: int) -> Key:
    """Returns the keys of stage n: the first has those that are given."""
    if not n:
        return key
    fold = lambda key: jax.random.fold_in(key, np.uint32(2**31 - 3 - n))
    return jax.vmap(fold)(key) if key.ndim else fold(key)
