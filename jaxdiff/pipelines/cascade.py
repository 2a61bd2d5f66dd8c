"""A cascade: a small picture from the prompt, which later stages make larger (CDM, Imagen, DeepFloyd IF)."""

import dataclasses
import itertools
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdiff.pipelines import inputs
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.typing import Key

_FIRST = ("init_noise", "image", "mask", "height", "width", "strength")
"""Options of the first stage alone: those after it start from its picture."""


@dataclasses.dataclass(frozen=True)
class CascadeOptions:
    """The options of a cascade beside those of its first stage.

    Attributes:
      noise_level: level of the noise on each later stage's small picture; None: each stage's own.
      truncate: end each walk but the last at that level, instead of adding noise to its picture.
    """

    noise_level: int | None = None
    truncate: bool = False


class Cascade:
    """Stages that are called one after another; pictures between them stay on their devices, as float32 in [-1, 1].

    A prompt, a negative prompt and the number of steps are for all; the other options of the first stage are its own,
    and the later ones have `noise_level` and their own guidance, unless it is given; those that their authors do not
    guide never are. What the first fills, a later one that fills does too.

    Attributes:
      stages: the pipelines; all but the first enlarge.
      runs: where they were read, where that is known.
      Options: what a call may be given.

    Source: Ho et al. 2021, arXiv 2106.15282 (cascades; section 3.2, truncated); Saharia et al. 2022, arXiv 2205.11487.
    """

    def __init__(self, stages: Sequence[Any]):
        """Takes stages, which may share their text encoder's weights; the first may be a prior and its decoder.

        Raises:
          ValueError: if there are none, the first enlarges, a later one does not make larger pictures, was trained on
            smaller pictures of another size, or knows other classes.
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
            if stage.low and (small_h, small_w) != (stage.low, stage.low):
                raise ValueError(
                    f"stage {n} enlarges pictures of {stage.low}x{stage.low}, and the one before it makes them of "
                    f"{small_h}x{small_w}: expected stages of one cascade"
                )
        known = {stage.model.labels for stage in stages if stage.model.labels}
        if len(known) > 1:
            counts = ", ".join(str(len(stage.model.labels)) for stage in stages)
            raise ValueError(
                f"the stages know other classes than each other ({counts}): expected stages of one cascade"
            )
        self.stages, self.runs = tuple(stages), tuple[str, ...]()
        self._levels = [f.name for f in dataclasses.fields(CascadeOptions) if self._takes(f.name)]
        kinds = typing.get_type_hints(CascadeOptions)
        own = [(f.name, f.type, f.default) for f in dataclasses.fields(stages[0].Options)]
        own += [
            (f.name, kinds[f.name], f.default) for f in dataclasses.fields(CascadeOptions) if f.name in self._levels
        ]
        fields = [(name, kind, dataclasses.field(default=default)) for name, kind, default in own]
        listed = (CascadeOptions.__doc__ or "").partition("Attributes:\n")[2].rstrip()
        doc = {"__doc__": f"{(stages[0].Options.__doc__ or '').rstrip()}\n{listed}\n"}
        self.Options = dataclasses.make_dataclass("Options", fields, frozen=True, namespace=doc)

    @property
    def model(self) -> Any:
        """Returns the static part of the first stage, which the prompt steers most."""
        return self.stages[0].model

    @property
    def size(self) -> tuple[int, int]:
        """Returns height and width of the last stage's pictures."""
        height, width = self.stages[-1].size
        return height, width

    def _takes(self, name: str) -> bool:
        """Returns whether later stages take an option of `CascadeOptions`: one of them the level, all to truncate."""
        needed = {"noise_level": "noise_level", "truncate": "noisy"}[name]
        has = [needed in {f.name for f in dataclasses.fields(stage.Options)} for stage in self.stages[1:]]
        return (any if name == "noise_level" else all)(has or [False])

    def __call__(
        self, prompts: str | Sequence[str], *, key: Any, options: Any = None, latents: bool = False, **fields: Any
    ) -> Any:
        """Returns pictures uint8 [b h w 3] of the last stage, one for each prompt; see `DiffusionPipeline`.

        Each stage draws from its own part of the keys.

        Raises:
          ValueError: for options that a stage does not take; no stage has been compiled then.
        """
        prompts, keys = inputs.prompts(prompts), inputs.check_key(key)
        calls = self._calls(options, fields)
        for n, (stage, (own, until)) in enumerate(zip(self.stages[1:], calls[1:], strict=True), 1):
            small = np.zeros((len(prompts), *self.stages[n - 1].size, 3), np.float32)
            stage.arguments([""] * len(prompts), key=_part(jax.random.key(0), n), until=until, image=small, **own)
        picture: Any = None
        for n, (stage, (own, until)) in enumerate(zip(self.stages, calls, strict=True)):
            call = {**own, "image": picture} if n else own
            if until is not None:
                call["until"] = until
            last = n == len(self.stages) - 1
            words = prompts if not n or stage.model.reads else [""] * len(prompts)
            picture = stage(words, key=_part(keys, n), latents=latents, on_device=not last, **call)
            if until is not None:  # the noisy picture of a process that preserves variance, as the next stage knows it
                picture = picture * _preserving(stage, until)
        return picture

    def _calls(self, options: Any, fields: Mapping[str, Any]) -> list[tuple[dict[str, Any], float | None]]:
        """Returns what each stage is given, but for its picture, and the log-SNR at which its walk ends."""
        asked = {} if options is None else {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
        default = {f.name: f.default for f in dataclasses.fields(self.Options)}
        asked = {name: value for name, value in asked.items() if value is not default.get(name)}
        asked |= dict(fields)
        own = {name: asked.pop(name) for name in ("noise_level", "truncate") if name in asked}
        if wrong := [name for name in own if name not in self._levels and own[name]]:
            raise ValueError(f"this cascade takes no {wrong[0]}: its later stages were not trained with such noise")
        sized = [name for name in ("height", "width") if asked.get(name) is not None]
        if sized and any(stage.low for stage in self.stages[1:]):
            raise ValueError(
                f"{sized[0]} is {asked[sized[0]]}: these stages enlarge pictures of one size, so leave it out"
            )
        level, truncate = own.get("noise_level"), bool(own.get("truncate"))
        calls: list[tuple[dict[str, Any], float | None]] = [(asked, None)]
        for n, stage in enumerate(self.stages[1:]):
            takes = {f.name: f.default for f in dataclasses.fields(stage.Options)}
            later = {name: value for name, value in asked.items() if name in takes and name not in _FIRST}
            if stage.guidance is None:
                later.pop("guidance", None)
            if stage.model.fills:
                later |= {"original": asked.get("image"), "mask": asked.get("mask")}
            if level is not None and "noise_level" in takes:
                later["noise_level"] = level
            if truncate:
                later["noisy"] = True
                alpha, sigma = stage.level(takes["noise_level"] if level is None else level)
                calls[n] = (calls[n][0], 2 * float(np.log(alpha / sigma)))
            calls.append((later, None))
        return calls

    def settings(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the options that each stage runs with in a call with these, as far as they are numbers or names."""
        settings = []
        for stage, (own, _) in zip(self.stages, self._calls(None, options), strict=True):
            settings += stage.settings(own)
        return settings

    def compiled(self) -> int:
        """Counts the programs that have been compiled for all stages."""
        return sum(stage.compiled() for stage in self.stages)


def _preserving(stage: DiffusionPipeline, log_snr: float) -> float:
    """Returns 1 / sqrt(alpha^2 + sigma^2) of a stage's process at a log-SNR."""
    schedule = stage.model.process.schedule
    t = schedule.time(np.array([log_snr]))
    return float(1 / np.hypot(schedule.alpha(t), schedule.sigma(t))[0])


def _part(key: Key, n: int) -> Key:
    """Returns the keys of stage n: the first has those that are given."""
    if not n:
        return key
    fold = lambda key: jax.random.fold_in(key, np.uint32(2**31 - 3 - n))
    return jax.vmap(fold)(key) if key.ndim else fold(key)
