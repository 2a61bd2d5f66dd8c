"""The networks of a published model, of a directory of diffusers or of one file, as they are read and then changed.

Other dtypes for the computation, weights of 8 bits, and LoRAs that are added for good.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from jaxdiff.pretrained import glide, lora, quantize, single_file, single_part, textual_inversion
from jaxdiff.pretrained.components import FAMILIES
from jaxdiff.pretrained.index import guidance
from jaxdiff.pretrained.read import Bundle, Component, read_component, read_directory, read_json, read_tokenizer
from jaxdiff.typing import Params

NARROW = ("unet", "controlnet", "text_encoder")
"""Parts that may have weights in 8 bits: the others are small, or lose too much."""


def read_bundle(
    path: Path | str,
    *,
    dtype: str | None = None,
    variant: str | None = None,
    tokenizer: Path | str | None = None,
    prediction: str | None = None,
    parts: Mapping[str, str | Path] = MappingProxyType({}),
    textual_inversions: Sequence[str | Path] = (),
    without: Sequence[str] = (),
    place: Callable[[Params], Any] | None = None,
) -> Bundle:
    """Reads the networks of a model directory of diffusers, or of one file; a warning names what is left out.

    Args:
      path: the directory or file.
      dtype: dtype of the weights; None: the files'.
      variant: `fp16` takes `*.fp16.safetensors` where there is one.
      tokenizer: its directory, for a file, which has none.
      prediction: what the network of a file predicts, where the file does not tell.
      parts: more components by name, or others than the model's own: directories, and for `vae` and `controlnet` files.
      textual_inversions: files of new words for the prompt.
      without: components that are not wanted.
      place: tree of shapes -> tree of shardings; None: the default device.

    Raises:
      ValueError: for options that are for the other kind, besides what reading raises.
    """
    path, unwanted = Path(path), {*without, *parts}
    kind = "one file, which has no" if path.is_file() else "a directory, which has its own"
    wrong = {"variant": variant} if path.is_file() else {"tokenizer": tokenizer, "prediction": prediction}
    if names := ", ".join(name for name, value in wrong.items() if value):
        raise ValueError(f"{path} is {kind} {names}: leave {names} out")
    where = None if place is None else (lambda name, shapes: place(shapes))
    if path.is_file() and glide.found(path):
        beside = {"prediction": prediction, "textual_inversions": textual_inversions, **parts}
        if names := ", ".join(name for name, value in beside.items() if value):
            raise ValueError(f"{path} is a model of GLIDE, which takes no {names}: leave it out")
        bundle = glide.read(path, dtype=dtype, tokenizer=tokenizer, shardings=where, without=without)
    elif path.is_file():
        bundle = single_file.read(
            path, dtype=dtype, tokenizer=tokenizer, prediction=prediction, shardings=where, without=unwanted
        )
    else:
        bundle = read_directory(path, dtype=dtype, variant=variant, without=unwanted, shardings=where)
    for name, why in bundle.skipped.items():
        if name not in unwanted:
            warnings.warn(f"{path}: {name} is left out: {why}", stacklevel=3)
    more = {}
    for name, part in parts.items():
        if Path(part).is_file():
            own = functools.partial(_own_config, path, name)
            more[name] = single_part.read(part, name, own=own, dtype=dtype, shardings=place)
        else:
            more[name] = read_component(part, dtype=dtype, shardings=place)
    bundle = dataclasses.replace(bundle, components={**bundle.components, **more})
    for file in textual_inversions:
        bundle = textual_inversion.add(bundle, file)
    return bundle


def outline_bundle(path: Path, *, safety: bool = False) -> Bundle:
    """Returns the networks of a diffusion model's directory of diffusers with shapes in place of weights.

    Raises:
      ValueError, OSError: if a config is damaged or missing.
    """
    index = read_json(path / "model_index.json")
    kind = index.get("_class_name", "")
    bundle = Bundle(kind, index, {}, {}, {}, guidance=guidance(kind))
    for name, entry in index.items():
        kind = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        folder = path / name if (path / name).is_dir() else path
        if name.startswith("tokenizer") and kind:
            bundle.tokenizers[name] = read_tokenizer(folder, kind)
        elif name.endswith("scheduler") and kind:
            bundle.schedulers[name] = read_json(folder / "scheduler_config.json")
        elif kind in FAMILIES and (name != "safety_checker" or safety):
            json = read_json(folder / "config.json")
            net = FAMILIES[kind].config(json)
            bundle.components[name] = Component(kind, json, net, FAMILIES[kind].shapes(net, json))
    return bundle


def _own_config(path: Path, name: str) -> Mapping[str, Any]:
    """Returns the config.json of a model's own component, whether its weights are there or not."""
    return single_file.configs_of(path)[name] if path.is_file() else read_json(path / name / "config.json")


def narrowed(bundle: Bundle, kind: str) -> Bundle:
    """Stores the large weights of `NARROW` of a bundle in 8 bits."""
    parts = dict(bundle.components)
    for name, part in parts.items():
        if name.startswith(NARROW):
            parts[name] = dataclasses.replace(part, params=quantize.quantize(part.params, kind))
    return dataclasses.replace(bundle, components=parts)


def computing(bundle: Bundle, dtype: str | None, decode_dtype: str | None) -> Bundle:
    """Returns the bundle with networks that compute in `dtype`; an autoencoder in float32 where it would overflow.

    Those of our own training have weights of any dtype cast to it, and compute as they were trained if it is None.
    """

    def config(net: Any, dtype: str) -> Any:
        inner = {"net": config(net.net, dtype)} if hasattr(net, "net") else {"dtype": dtype}  # a ControlNet's U-Net
        return dataclasses.replace(net, **inner)

    parts, own = {}, bundle.native is not None
    for name, part in bundle.components.items():
        chosen = dtype or (None if own else "float32")
        if name in ("vae", "vqvae", "movq", "vqgan"):
            chosen = decode_dtype or ("float32" if getattr(part.config, "upcast", False) else chosen)
        if own and dtype:
            part = dataclasses.replace(part, params=jax.tree.map(lambda x: x.astype(dtype), part.params))
        parts[name] = dataclasses.replace(part, config=config(part.config, chosen)) if chosen else part
    return dataclasses.replace(bundle, components=parts)


def fused(bundle: Bundle, loras: Sequence[lora.Lora], weights: Sequence[float]) -> Bundle:
    """Adds LoRAs of these weights to a bundle's networks for good."""
    parts = dict(bundle.components)
    for name in {name for one in loras for name in one}:
        merged = lora.merge(parts[name].params, [one.get(name, {}) for one in loras], weights)
        parts[name] = dataclasses.replace(parts[name], params=merged)
    return dataclasses.replace(bundle, components=parts)
