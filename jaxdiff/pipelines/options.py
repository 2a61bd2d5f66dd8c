"""The options of a call of a diffusion pipeline, and those of them that a model takes."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdiff.pipelines.model import Model


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a call; `Options` of a pipeline is a class of those that its model takes.

    Attributes:
      steps: steps of the sampler, over the whole grid.
      sampler: a name in `sampling.SAMPLERS`, a scheduler_config.json of diffusers, or None: the model's own.
      grid: the name of a grid in `sampling.grid.GRIDS`; None: the sampler's own.
      guidance: 1 follows the model's own distribution, more follows the prompt more closely. None: no guidance, at half
        the work.
      rescale: from 0 to 1, how far the guided output is held to the standard deviation of the unguided.
      negative: what to keep away from, in words or a class; one for all, or one for each.
      chunks: chunks of 75 tokens, how much of a long prompt is read.
      eta: noise added at each step, where the sampler has it: 0 none, 1 as DDPM.
      init_noise: [b h w c] unit Gaussian in the size of the latents, instead of noise from the keys.
      height: height of the pictures; None: that of `image`, or what the model was trained on.
      width: the same.
      image: uint8 [b h w 3], to change, fill, edit or enlarge, whatever the model does; or latents [b h w c].
      mask: [b h w 1], 1 where new content goes.
      strength: how much of `image` is changed, in (0, 1]; None: 0.8, and with a mask 1.
      denoising_end: the part of the way, between 0 and 1, after which the walk ends and its latents are handed on.
      denoising_start: the part that another model walked, whose latents are `image`.
      picture_guidance: how closely an edited picture keeps to `image`.
      original: uint8 [b h w 3] of the enlarged size, that an enlarged picture starts from; with `mask` it is filled.
      noise_level: level of the noise that an upscaler adds to `image`, so that it may invent details, or that is added
        to the embedding that is drawn.
      noisy: whether `image` has that noise already, as a stage before leaves it whose walk ends there.
      hints: uint8 [b h w 3] for each ControlNet, and last for the T2I-adapter.
      depth: uint8 [b h w 3] maps of depth, bright where it is near, of which the picture is made.
      hint_weights: how much each counts; 1 for each if empty.
      picture: uint8 [b h w 3] for the IP-adapter, or of which to make variations.
      picture_weight: how much it counts for an IP-adapter.
      embed: [b e] CLIP's embeddings of pictures, seen or imagined by a prior, that are drawn.
      no_embed: [b e] what stands in their place where `guidance` leads away from; None: zeros.
      lora_weights: how much each LoRA counts; None: as the pipeline was made.
    """

    steps: int = 20
    sampler: str | Mapping[str, Any] | None = None
    grid: str | None = None
    guidance: float | None = 7.5
    rescale: float = 0.0
    negative: str | Sequence[str] | None = None
    chunks: int = 1
    eta: float | None = None
    init_noise: Any = None
    height: int | None = None
    width: int | None = None
    image: Any = None
    mask: Any = None
    strength: float | None = None
    denoising_end: float | None = None
    denoising_start: float | None = None
    picture_guidance: float = 1.5
    original: Any = None
    noise_level: int = 20
    noisy: bool = False
    hints: Any = ()
    depth: Any = None
    hint_weights: Sequence[float] = ()
    picture: Any = None
    picture_weight: float = 1.0
    embed: Any = None
    no_embed: Any = None
    lora_weights: Sequence[float] | None = None


def of_model(model: Model, *, guidance: float | None = 7.5, loras: int = 0, level: int | None = None) -> type:
    """Returns the class of a model's options: fields of `Options`, with the model's own defaults.

    Args:
      model: the model.
      guidance: its default.
      loras: how many LoRAs it has.
      level: default of `noise_level`; None: that of published models of its kind.
    """
    names = {"steps", "sampler", "grid", "eta", "init_noise", "height", "width", "image"}
    edits, enlarges, sharp = model.edits, model.enlarges, "vae" not in model.nets
    steered = model.steered
    more = {
        ("guidance",): steered,
        ("rescale",): steered and not edits and not model.embeds_guidance,
        ("negative",): model.reads and not model.embeds_guidance,
        ("chunks",): model.chunked,
        ("mask", "strength"): not edits and (sharp or not enlarges),
        ("original",): enlarges and sharp,
        ("picture_guidance",): edits,
        ("denoising_end", "denoising_start"): model.sizes > 0,
        ("noise_level",): (enlarges and not model.picture) or model.noises,
        ("noisy",): model.noised_small,
        ("hints",): bool(model.named("controlnet") or model.named("adapter") or model.nets["unet"].hint),
        ("hint_weights",): bool(model.named("controlnet") or model.named("adapter")),
        ("depth",): model.deep,
        ("embed", "no_embed"): bool(model.embed),
        ("picture",): model.looks,
        ("picture_weight",): model.picture_tokens is not None,
        ("lora_weights",): loras > 0,
    }
    names.update(name for group, has in more.items() if has for name in group)
    if level is None:
        level = 0 if model.noises else 250 if sharp else Options.noise_level
    own = {"guidance": guidance, "noise_level": level}
    fields = [
        (f.name, f.type, dataclasses.field(default=own.get(f.name, f.default)))
        for f in dataclasses.fields(Options)
        if f.name in names
    ]
    return dataclasses.make_dataclass("Options", fields, frozen=True, namespace={"__doc__": Options.__doc__})


def merged(kind: type, guidance: float | None, asked: Any, fields: Mapping[str, Any]) -> Options:
    """Returns the options of a call, checked as far as they can be alone.

    Args:
      kind: the class of what the model takes, see `of_model`.
      guidance: the scale of calls that give none; None: they are not guided.
      asked: an instance of that class, or of `Options`; None: all defaults.
      fields: by name, before those of `asked`.

    Raises:
      ValueError: for a name that is not an option, one that this model does not take, and a number that makes no sense.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(Options)} | {"guidance": guidance}
    defaults |= {f.name: f.default for f in dataclasses.fields(kind)}
    values = {} if asked is None else {f.name: getattr(asked, f.name) for f in dataclasses.fields(asked)}
    values |= fields
    if unknown := [name for name in values if name not in defaults]:
        near = difflib.get_close_matches(unknown[0], defaults, 1)
        raise ValueError(f"there is no option {unknown[0]!r}" + (f": did you mean {near[0]}?" if near else ""))
    everything = _numbers({**defaults, **values})
    names = {f.name for f in dataclasses.fields(kind)}
    off = {"guidance": (None, 1)}
    for name in values.keys() - names:
        value = values[name]
        if not _same(value, defaults[name]) and not any(_same(value, one) for one in off.get(name, ())):
            why = _WHY.get(name)
            raise ValueError(f"this model takes no {name}" + (f": {why}" if why else ""))
    return Options(**everything)


_WHY = {
    "guidance": "it reads no prompt that could guide it",
    "rescale": "it has no guided output to rescale",
    "negative": "it reads no prompt, or is conditioned on the guidance scale and leads away from nothing",
    "chunks": "it reads no prompt in chunks",
    "mask": "it enlarges or edits whole pictures",
    "strength": "strength is for models that start from a picture, and this one enlarges or edits it",
    "denoising_end": "only models that share a grid, as SDXL and its refiner, do",
    "denoising_start": "only models that share a grid, as SDXL and its refiner, do",
    "picture_guidance": "only models that edit pictures by instructions do",
    "original": "only models that enlarge pictures in pixels do",
    "noise_level": "only models that enlarge pictures, or draw a noisy embedding, do",
    "noisy": "only models that were trained with noise on the small picture do",
    "hints": "load the model with a ControlNet or a T2I-adapter",
    "depth": "only the depth model of Stable Diffusion 2 does; give others their hints",
    "hint_weights": "load the model with a ControlNet or a T2I-adapter",
    "picture": "it looks at no picture; load it with an IP-adapter, or pass image to change a picture",
    "picture_weight": "load it with an IP-adapter",
    "lora_weights": "load it with LoRAs",
    "embed": "it draws no embedding",
    "no_embed": "it draws no embedding",
}


def _same(a: Any, b: Any) -> bool:
    """Returns whether two values that may be arrays or sequences are one, or equal scalars, or both empty."""
    if a is b:
        return True
    if hasattr(a, "shape") or hasattr(b, "shape"):
        return False
    return a == b or (isinstance(a, list | tuple) and not a and isinstance(b, list | tuple) and not b)


COUNTS = {
    "steps": (1, 10**5),
    "chunks": (1, 1000),
    "height": (1, 2**31),
    "width": (1, 2**31),
    "noise_level": (0, 10**5),
}
"""The least and the most of whole numbers; sizes have a bound of their own, by what they take (`canvas`)."""


def _numbers(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options with plain numbers; refuses what is none of the expected kind, or not finite."""
    options = dict(asked)
    for name, (least, most) in COUNTS.items():
        value = options[name]
        if value is None and name in ("height", "width"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name} is {value!r}: expected a whole number")
        if value < least:
            raise ValueError(f"{name} is {value}: expected {least} or more")
        if value > most:
            raise ValueError(f"{name} is {value}: expected at most {most}")
        options[name] = int(value)
    names = ("guidance", "rescale", "eta", "strength", "picture_guidance", "picture_weight")
    for name in (*names, "denoising_end", "denoising_start"):
        value = options[name]
        if value is None and name in ("guidance", "eta", "strength", "denoising_end", "denoising_start"):
            continue
        if isinstance(value, list | tuple) or np.ndim(value):
            raise ValueError(
                f"{name} is a list of {len(value)}: expected one number for all pictures; make one call for each"
            )
        options[name] = _number(name, value)
    if not 0 <= options["rescale"] <= 1:
        raise ValueError(f"rescale is {options['rescale']}: expected 0 to 1")
    for name in ("hint_weights", "lora_weights"):
        value = options[name]
        if isinstance(value, int | float | str):
            raise ValueError(f"{name} is {value!r}: expected a list of numbers")
        if value is not None:
            options[name] = tuple(_number(f"{name}[{n}]", one) for n, one in enumerate(value))
    return options


def _number(name: str, value: Any) -> float:
    number = isinstance(value, int | float | np.number) or getattr(value, "shape", None) == ()
    if isinstance(value, bool) or not number or not abs(value) <= np.finfo(np.float32).max:
        raise ValueError(f"{name} is {value!r}: expected a finite number")
    return float(value)
