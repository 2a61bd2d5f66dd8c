"""A model of others that training starts from: read, identified by its hash, split into what moves and what not.

Parameters are by component, {"unet": ..., "text_encoder": ...}; a path is 'unet/down_0/resnet_0/conv1/kernel'. A run
keeps no copy of the model: it notes the SHA-256 of the U-Net's files as base.json, and refuses another model later.
Of a model from the hub it notes the commit too, and reads that one, whatever became of the name.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.pipelines.model import Model, make_model
from jaxdiff.pretrained import hub, mend, single_file
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.files import read_json
from jaxdiff.pretrained.read import Bundle, read_directory
from jaxdiff.pretrained.rules import few, flatten, unflatten
from jaxdiff.training.workdir import write_text
from jaxdiff.typing import Params

NOTE = "base.json"
_WITHOUT = ("safety_checker", "image_encoder")
_FORMS = ("*.safetensors", "*.bin")


class Base(NamedTuple):
    """A model that is trained on, as far as it is known without its weights.

    Attributes:
      path: a directory of diffusers, or a single file.
      bundle: its parts; parameters are shapes.
      model: how they are put together.
      sha256: of the U-Net's files.
    """

    path: Path
    bundle: Bundle
    model: Model
    sha256: str = ""


def outline(
    path: Path | None,
    *,
    revision: str | None = None,
    tokenizer: Path | None = None,
    prediction: str | None = None,
    zero_terminal: bool = False,
    dtype: str = "float32",
    takes: str = "",
) -> Base:
    """Reads what a model is, without its weights.

    Args:
      path: a directory of diffusers, a single file, or a name on the hub.
      revision: revision of a name.
      tokenizer: its directory, for a single file, which has none.
      prediction: what the network is to predict from now on; None: what it does.
      zero_terminal: whether its trained steps are to end without signal from now on.
      dtype: dtype of the computation; an autoencoder that overflows stays in float32.
      takes: what its U-Net is to take beside the latents, a key of `PICTURES`; '': nothing. A model that takes nothing
        is widened: its first convolution gets more inputs, with weights of zero.

    Raises:
      FileNotFoundError: if there is no model.
      ValueError: if it is none in an autoencoder's latents that reads prompts by CLIP, or takes another picture.
    """
    if path is None:
        raise ValueError("task.model is not given: name a directory of diffusers, or a file of Stable Diffusion")
    path = hub.local(path, revision, without=_WITHOUT)
    if not path.exists():
        raise FileNotFoundError(f"task.model is {path}, and nothing is there: name a directory of diffusers, or a file")
    if path.is_file() and tokenizer is None:
        raise ValueError(
            f"task.model is {path}, one file, which has no tokenizer: give task.tokenizer, CLIP's directory"
        )
    bundle = _retrained(_read(path, tokenizer, prediction, weights=False), prediction, zero_terminal)
    parts = {}
    for name, part in bundle.components.items():
        own = "float32" if getattr(part.config, "upcast", False) else dtype
        parts[name] = dataclasses.replace(part, config=dataclasses.replace(part.config, dtype=own))
    bundle = dataclasses.replace(bundle, components=parts)
    model = make_model(bundle)
    if not model.chunked or "vae" not in model.nets or model.process.says != "prediction":
        raise ValueError(f"task.model is {path}, a {bundle.kind}: expected Stable Diffusion 1, 2 or XL, or its refiner")
    kind, extra = PICTURES[takes](model.channels) if takes else ("", 0)
    if takes and not model.extra:
        bundle = _widened(bundle, kind if model.sizes else kind.replace("XL", ""), extra)
        model = make_model(bundle)
    if model.embeds_guidance:
        raise ValueError(
            f"task.model is {path}, a student conditioned on the guidance scale: train the model that it learned from"
        )
    if model.extra != extra:
        what = f"text and {extra} channels" if takes else "text"
        raise ValueError(
            f"task.model is {path}, whose U-Net takes {model.extra} more channels, of another picture: expected one "
            f"that makes pictures from {what} alone"
        )
    return Base(path, bundle, model)


PICTURES: dict[str, Callable[[int], tuple[str, int]]] = {
    "edited": lambda channels: ("StableDiffusionXLInstructPix2PixPipeline", channels),
    "masked": lambda channels: ("StableDiffusionXLInpaintPipeline", channels + 1),
}
"""The classes that sample U-Nets with more input channels than latents have, and how many more each takes."""


def _widened(bundle: Bundle, kind: str, extra: int) -> Bundle:
    """Returns the bundle with a U-Net of more inputs, which a class of that name samples."""
    unet = bundle.components["unet"]
    json = mend.changed(unet.json, in_channels=unet.config.out_channels + extra)
    one = family(unet.kind)
    part = dataclasses.replace(unet, json=json, params=one.shapes(unet.config, json))
    parts = {**bundle.components, "unet": part}
    return dataclasses.replace(bundle, kind=kind, index={**bundle.index, "_class_name": kind}, components=parts)


def with_guidance_embedding(base: Base, width: int) -> Base:
    """Returns the base with a U-Net that is conditioned on the guidance scale, embedded in waves of this width."""
    unet = base.bundle.components["unet"]
    json = mend.changed(unet.json, time_cond_proj_dim=width)
    one = family(unet.kind)
    config = dataclasses.replace(unet.config, guidance_width=width)
    part = dataclasses.replace(unet, json=json, config=config, params=one.shapes(config, json))
    bundle = dataclasses.replace(base.bundle, components={**base.bundle.components, "unet": part})
    return base._replace(bundle=bundle, model=make_model(bundle))


def _read(path: Path, tokenizer: Path | None, prediction: str | None, **options: Any) -> Bundle:
    if path.is_file():
        return single_file.read(path, tokenizer=tokenizer, prediction=prediction, without=_WITHOUT, **options)
    if tokenizer is not None:
        raise ValueError(f"task.tokenizer is given, and {path} is a directory, which has its own: leave it out")
    return read_directory(path, without=_WITHOUT, **options)


def load(base: Base, tokenizer: Path | None, place: Callable[[Params], Any]) -> Params:
    """Reads all parameters by component as the files have them, each to where `place` says."""
    prediction = base.bundle.schedulers["scheduler"].get("prediction_type")
    where = lambda name, shapes: place({name: shapes})[name]
    bundle = _read(base.path, tokenizer, prediction if base.path.is_file() else None, shardings=where)
    found = {name: part.params for name, part in bundle.components.items()}
    kernel, wanted = found["unet"]["conv_in"]["kernel"], base.bundle.components["unet"].params["conv_in"]["kernel"]
    if missing := wanted.shape[2] - kernel.shape[2]:
        wide = jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))
        found["unet"] = {**found["unet"], "conv_in": {**found["unet"]["conv_in"], "kernel": wide}}
    if guided := base.bundle.components["unet"].params.get("guidance_proj"):
        blank = {"guidance_proj": jax.tree.map(lambda x: jnp.zeros(x.shape, kernel.dtype), guided)}
        blank = jax.device_put(blank, where("unet", blank))
        found["unet"] = {**found["unet"], **blank}
    return found


def _retrained(bundle: Bundle, prediction: str | None, zero_terminal: bool) -> Bundle:
    """Returns the bundle with the scheduler of what the network becomes: a class that has it, from pure noise on."""
    config = bundle.schedulers["scheduler"]
    new: dict[str, Any] = {"prediction_type": prediction} if prediction else {}
    if zero_terminal:
        if {**config, **new}.get("prediction_type") != "v_prediction":
            raise ValueError("task.zero_terminal wants task.prediction v_prediction: noise says nothing of eps")
        new |= {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        new |= {"clip_sample": False, "set_alpha_to_one": True}
    config = mend.changed(config, **new)
    index = {**bundle.index, "scheduler": ["diffusers", config["_class_name"]]}
    return dataclasses.replace(bundle, index=index, schedulers={**bundle.schedulers, "scheduler": config})


def noted(base: Base, folder: Path, new: bool) -> Base:
    """Returns the base with its hash, which a new run writes down, and an old one compares.

    Raises:
      FileNotFoundError: if an old run has no note.
      ValueError: if the model is another now.
    """
    sha256 = _sha256(base.path)
    if new:
        note = {"model": str(base.path), "revision": hub.commit_of(base.path), "sha256": sha256}
        write_text(folder / NOTE, json.dumps(note, indent=2) + "\n")
    elif (note := read_json(folder / NOTE)).get("sha256") != sha256:
        raise ValueError(
            f"task.model is {base.path}, another model (hash {sha256[:12]}) than {folder} was trained on "
            f"({note.get('model')}, {str(note.get('sha256'))[:12]}): name that one in {folder / 'config.json'}"
        )
    return base._replace(sha256=sha256)


def pinned(folder: Path) -> str | None:
    """Returns the commit of the hub's model that a run was trained on; None of another, or where nothing is noted."""
    return read_json(folder / NOTE).get("revision") if (folder / NOTE).is_file() else None


def _sha256(path: Path) -> str:
    """Returns the hash of a single file, or of the weights in a directory's unet folder, by their names."""
    folder = path / "unet" if (path / "unet").is_dir() else path
    files = [path] if path.is_file() else sorted(file for form in _FORMS for file in folder.glob(form))
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(2**24):
                digest.update(block)
    return digest.hexdigest()


def trainable(base: Base, patterns: Sequence[str], field: str) -> list[str]:
    """Returns the paths of the U-Net's and the text encoders' parameters that one of the patterns matches as a whole.

    Raises:
      ValueError: if a pattern is none, or matches no parameter.
    """
    trees = {name: part.params for name, part in base.bundle.components.items() if name.startswith(("unet", "text"))}
    paths, found = list(flatten(trees)), set[str]()
    for pattern in patterns:
        try:
            own = [path for path in paths if re.fullmatch(pattern, path)]
        except re.error as error:
            raise ValueError(f"{field} has {pattern!r}, which is no pattern: {error}") from None
        if not own:
            raise ValueError(
                f"{field} has {pattern!r}, which matches no parameter of {', '.join(trees)}: patterns match whole "
                f"paths, such as {few(paths[:2])}"
            )
        found |= {*own}
    return [path for path in paths if path in found]


def split(tree: Params, paths: Sequence[str]) -> tuple[Params, Params]:
    """Returns the leaves at these paths, and all others, as two trees; `join` is the inverse."""
    chosen, flat = {*paths}, flatten(tree)
    of = lambda side: unflatten({path: x for path, x in flat.items() if (path in chosen) == side})
    return of(True), of(False)


def join(one: Params, other: Params) -> dict[str, Any]:
    """Returns the tree with the leaves of two."""
    return unflatten({**flatten(one), **flatten(other)})


def cast(tree: Params, dtype: Callable[[str], str | None]) -> dict[str, Any]:
    """Leaves of floating point in the dtype that `dtype` says for their path; None leaves one as it is."""

    def one(path: str, x: Any) -> Any:
        to = dtype(path)
        return x.astype(to) if to and jnp.issubdtype(x.dtype, jnp.floating) else x

    return unflatten({path: one(path, x) for path, x in flatten(tree).items()})
