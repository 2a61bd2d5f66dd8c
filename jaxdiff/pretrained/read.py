"""Reads a model directory of diffusers: networks, tokenizers, and how to sample.

Tensors go one by one from the file to their device and sharding, largest first. The host holds one tensor at a time
beside what the devices hold (on a CPU these are the same memory).
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models.text_clip import ClipTextConfig
from jaxdiff.pretrained import (
    bert_tokenizer,
    clip_tokenizer,
    files,
    flax_file,
    index,
    mend,
    preprocessor,
    scheduler,
    unigram_tokenizer,
)
from jaxdiff.pretrained.components import FAMILIES, Json, family
from jaxdiff.pretrained.files import read_json
from jaxdiff.pretrained.rules import TensorError, flatten, from_tensors
from jaxdiff.typing import Params

Shardings = Callable[[str, Params], Any]
"""(name of the component, tree of shapes) -> tree of shardings, or one for all."""


@dataclasses.dataclass(frozen=True)
class Component:
    """One network of a pipeline.

    Attributes:
      kind: its class in the reference library, "UNet2DConditionModel"; or our own, where that has none.
      json: its config.json.
      config: our config.
      params: its parameters.
    """

    kind: str
    json: Mapping[str, Any]
    config: Any
    params: Params


@dataclasses.dataclass(frozen=True)
class Bundle:
    """The parts of a model that samples: a pipeline directory, read, or a run of our own training.

    Attributes:
      kind: the class of the pipeline, "StableDiffusionPipeline".
      index: model_index.json.
      components: networks by name, "unet".
      tokenizers: by name: a `ClipTokenizer`, or the `BytePair` of our own models.
      schedulers: scheduler_config.json by name; `process()` is what the main one means.
      skipped: names of optional components whose class is not supported, with the reason.
      native: the process of a model that has no scheduler_config.json.
      labels: names of the classes of a model that knows classes; () where they have none.
      guidance: the scale of calls that give none; None: they are not guided.
    """

    kind: str
    index: Mapping[str, Any]
    components: dict[str, Component]
    tokenizers: dict[str, Any]
    schedulers: dict[str, Mapping[str, Any]]
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    native: scheduler.Process | None = None
    labels: tuple[str, ...] = ()
    guidance: float | None = 7.5

    def process(self, name: str = "scheduler") -> scheduler.Process:
        """Returns the schedule, the kind of prediction, and how the authors sample."""
        return self.native or scheduler.process(self.schedulers[name])


def read_directory(
    path: Path | str,
    *,
    dtype: Any = None,
    variant: str | None = None,
    shardings: Shardings | None = None,
    without: Collection[str] = (),
    weights: bool = True,
) -> Bundle:
    """Returns a pipeline from the directory that diffusers saves.

    Args:
      path: has model_index.json, and a folder for each component.
      dtype: dtype of the parameters; None keeps what the files have.
      variant: `fp16` takes `*.fp16.safetensors` where there is one.
      shardings: where parameters go; None: to the default device.
      without: names of components to leave out, such as `safety_checker`.
      weights: whether to read them; else parameters are shapes.

    Raises:
      FileNotFoundError: if the directory is not a model; the message says what is missing.
      ValueError: for a class or a config that is not supported, a broken file, or tensors that do not fit.
    """
    path = Path(path)
    found = index.read(path, without)
    skipped = dict.fromkeys(set(without) & found.keys(), "not wanted")
    kind = found["_class_name"]
    bundle = Bundle(kind, found, {}, {}, {}, skipped, guidance=index.guidance(kind))
    for name, kind in index.entries(found, without).items():
        # the oldest models keep their one network beside model_index.json
        folder = path / name if (path / name).is_dir() else path
        if (own := index.bare(name)).startswith("tokenizer"):
            bundle.tokenizers[name] = read_tokenizer(folder, kind)
        elif name.endswith("scheduler"):
            config = read_json(folder / "scheduler_config.json")
            bundle.schedulers[name] = mend.scheduler(bundle.kind, config) if name == "scheduler" else config
        elif own in index.OPTIONAL and kind not in FAMILIES:
            if own not in index.WITHOUT_WEIGHTS:
                skipped[name] = f"the class {kind} is not supported"
        else:
            place = None if shardings is None else (lambda shapes, name=name: shardings(name, shapes))
            changed = lambda json, name=name: mend.component(bundle.kind, name, json)
            part = read_component(
                folder, kind=kind, dtype=dtype, variant=variant, shardings=place, mend=changed, weights=weights
            )
            bundle.components[name] = part
    _check(path, bundle)
    return bundle


def _check(path: Path, bundle: Bundle) -> None:
    """Refuses configs that do not go together."""
    parts = bundle.components
    for name in bundle.tokenizers:
        text = parts.get(name.replace("tokenizer", "text_encoder"))
        length = clip_tokenizer.length(path / name)
        clip = isinstance(text.config, ClipTextConfig) if text is not None else False
        if text is not None and clip and length is not None and length < text.config.length:
            raise ValueError(
                f"{path / name}: model_max_length={length} is not supported, only the {text.config.length} tokens that "
                "the text encoder takes"
            )
    for name in ("image_encoder", "safety_checker"):
        for folder in ("feature_extractor", "image_processor"):
            if name in parts:
                preprocessor.check(path / folder, parts[name].config.size)
    unet, text = parts.get("unet"), parts.get("text_encoder_2")
    if unet is not None and text is not None and (waves := unet.json.get("addition_time_embed_dim")):
        numbers = (unet.json.get("projection_class_embeddings_input_dim", 0) - text.config.projection) // waves
        index.check(bundle.kind, bundle.index, numbers)


def read_tokenizer(folder: Path, kind: str) -> Any:
    """Returns the tokenizer of a folder, of that class in the reference library."""
    if kind in bert_tokenizer.CLASSES:
        return bert_tokenizer.read(folder)
    return unigram_tokenizer.read(folder, kind) if kind in unigram_tokenizer.CLASSES else clip_tokenizer.read(folder)


def read_component(
    path: Path | str,
    *,
    kind: str | None = None,
    dtype: Any = None,
    variant: str | None = None,
    shardings: Callable[[Params], Any] | None = None,
    mend: Callable[[Json], Json] = lambda json: json,
    weights: bool = True,
) -> Component:
    """Reads one network from the folder that has its config.json and weights.

    Args:
      path: the folder.
      kind: its class; None: config.json says it.
      dtype: dtype of the parameters; None keeps what the file has.
      variant: `fp16` takes `*.fp16.safetensors` where there is one.
      shardings: tree of shapes -> tree of shardings, or one for all.
      mend: config.json -> what the reference makes of it.
      weights: whether to read them; else parameters are shapes.

    Raises:
      FileNotFoundError: if config.json or the weights are missing.
      ValueError: for a class or a config that is not supported, a broken file, or tensors that do not fit.
    """
    path = Path(path)
    config_json = mend(read_json(path / "config.json"))
    listed = config_json.get("architectures")
    kind = kind or config_json.get("_class_name") or (listed[0] if isinstance(listed, list) and listed else None)
    if not isinstance(kind, str):
        raise ValueError(f"{path / 'config.json'} does not say its class: it has no _class_name and no architectures")
    if (own := config_json.get("_class_name", kind)) != kind and own in list(FAMILIES):
        raise ValueError(f"{path / 'config.json'} is of a {own}, expected a {kind}")
    one = family(kind)
    net = one.config(config_json)
    shapes = one.shapes(net, config_json)
    if not weights:
        return Component(kind, config_json, net, shapes)
    flax = flax_file.read if one.stem == flax_file.STEM else None
    tensors = flax(path / flax_file.NAME) if flax else files.read_weights(path, variant)
    try:
        params = from_tensors(tensors, shapes, one.rules(net, config_json), placed(shapes, dtype, shardings))
    except TensorError as error:
        raise TensorError(f"{path} ({kind}): {error}") from None
    return Component(kind, config_json, net, params)


def placed(
    shapes: Params, dtype: Any = None, shardings: Callable[[Params], Any] | None = None
) -> Callable[[str, np.ndarray], jax.Array]:
    """Returns what puts a parameter on its devices, for `from_tensors`."""
    where: Mapping[str, Any] = {}
    if shardings is not None:
        tree = shardings(shapes)
        one = isinstance(tree, jax.sharding.Sharding)
        where = dict.fromkeys(flatten(shapes), tree) if one else flatten(tree)

    def put(path: str, x: np.ndarray) -> jax.Array:
        if dtype is not None and jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(dtype)
        # waiting frees the host's copy before the next one is read
        return jax.device_put(np.ascontiguousarray(x), where.get(path)).block_until_ready()

    return put
