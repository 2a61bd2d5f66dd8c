"""The CLIP that a prior or a decoder of its embeddings stands on, copied into the run: its directory is a model.

WORKDIR/image_encoder/, text_encoder/, tokenizer/    as transformers writes them
WORKDIR/embeddings.json                              their hash; mean and deviation of the embeddings of the data
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxdiff.data.source import Source
from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.models.image_clip import ClipImage, ClipImageConfig, prepare
from jaxdiff.models.text_clip import ClipText
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines import encode, first_stage
from jaxdiff.pretrained import clip_tokenizer
from jaxdiff.pretrained.clip_model import ClipParts
from jaxdiff.pretrained.read import Component, read_component, read_json
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks import clip as clip_task
from jaxdiff.tasks import saved
from jaxdiff.training.workdir import by_first, write_text
from jaxdiff.typing import Params

_MEASURED = 4096
"""Pictures that mean and deviation are measured on."""
_FILE = "embeddings.json"


class Kept(NamedTuple):
    """A CLIP of a run, without its weights.

    Attributes:
      folder: folder of the run.
      image: the tower of pictures.
      text: the tower of texts.
      tokenizer: its vocabulary.
      clip: hash of the tower of pictures.
      mean: mean of the embeddings of the data [e].
      deviation: their standard deviation [e].
    """

    folder: Path
    image: Component
    text: Component
    tokenizer: ClipTokenizer
    clip: str
    mean: np.ndarray
    deviation: np.ndarray


def keep(folder: Path, path: Path | None, source: Source) -> None:
    """Copies a CLIP into a new run, and measures its embeddings of the data; the first process writes.

    Raises:
      FileNotFoundError, ValueError: if there is none; see `tasks.clip.read`.
    """
    if path is None:
        raise ValueError("task.clip is not given: expected a run of the task clip, or the directory of a CLIPModel")
    parts = clip_task.read(path)
    by_first(lambda: _write(folder, parts, source))


def _write(folder: Path, parts: ClipParts, source: Source) -> None:
    first_stage.write_once(folder / "image_encoder", lambda at: write_component(parts.image, at))
    encode.write_text_encoder(folder, encode.Text(parts.text, parts.tokenizer))
    seen = embeddings(parts.image, [source[i]["image"] for i in _chosen(source)]).astype(np.float64)
    measured = {
        "clip": first_stage.fingerprint(parts.image),
        "mean": seen.mean(0).tolist(),
        "std": seen.std(0).tolist(),
    }
    if not np.isfinite(measured["mean"]).all() or not np.asarray(measured["std"]).all():
        raise ValueError("the CLIP gives embeddings that do not differ between pictures: it was never trained")
    write_text(folder / _FILE, json.dumps(measured))


def embeddings(part: Component, images: list[np.ndarray]) -> np.ndarray:
    """Returns CLIP's embeddings of pictures, float32 [n e], on one device."""
    run = Spread(
        lambda params, batch: embed(part.config, params, batch["image"]), devices=jax.local_devices()[:1], multiple=32
    )
    parts = np.array_split(np.stack(images), max(1, -(-len(images) // 32)))
    return np.concatenate([run(part.params, {"image": one}) for one in parts])


def _chosen(source: Source) -> list[int]:
    """Returns the examples that are measured, spread over the data."""
    return np.unique(np.linspace(0, len(source) - 1, min(_MEASURED, len(source))).round().astype(int)).tolist()


def both(kept: Kept, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Returns CLIP's embeddings of pictures of the data and of their captions, float32 [n e] each, on one device."""
    rows = [source[i] for i in _chosen(source)]
    seen = embeddings(read_component(kept.folder / "image_encoder"), [row["image"] for row in rows])
    part = read_component(kept.folder / "text_encoder")
    ids = np.stack([kept.tokenizer.encode(row["caption"], part.config.length) for row in rows])
    listen: Any = lambda params, tokens: ClipText(part.config).apply({"params": params}, tokens)[1]
    return seen, Spread(listen, devices=jax.local_devices()[:1], multiple=32)(part.params, ids)


def embed(net: ClipImageConfig, params: Params, image: UInt8[Array, "b h w 3"]) -> Float[Array, "b e"]:
    """Returns CLIP's embeddings of pictures, to which no gradient flows."""
    output: Any = ClipImage(net).apply({"params": params}, prepare(image.astype(jnp.float32) / 255, net.size))
    return jax.lax.stop_gradient(output[1].astype(jnp.float32))


def read(folder: Path) -> Kept:
    """Reads what a run keeps, but for the weights.

    Raises:
      FileNotFoundError: if a part is missing.
      ValueError: if a file is damaged.
    """
    for name in ("image_encoder", "text_encoder", "tokenizer", _FILE):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder / name} is missing, and the weights are of no use without it: put it back, or train in "
                "another workdir"
            )
    image, text = (first_stage.outline(folder / name) for name in ("image_encoder", "text_encoder"))
    measured = read_json(folder / _FILE)
    try:
        mean, deviation = (np.asarray(measured[name], np.float32) for name in ("mean", "std"))
        fits = mean.shape == deviation.shape == (image.config.projection,) and isinstance(measured["clip"], str)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits or not np.isfinite([mean, deviation]).all():
        raise ValueError(
            f"{folder / _FILE} is damaged: expected clip, mean and std of {image.config.projection} numbers"
        )
    return Kept(folder, image, text, clip_tokenizer.read(folder / "tokenizer"), measured["clip"], mean, deviation)


def hash_of(run: Path) -> str:
    """Returns the hash of the CLIP that a run stands on; an empty text where there is none yet."""
    file = run / _FILE
    return str(read_json(file).get("clip", "")) if file.is_file() else ""


def load(kept: Kept, names: tuple[str, ...], place: Any) -> Params:
    """Reads the weights of parts, where `place` puts them."""
    return {name: part for one in names for name, part in saved.load_part(kept.folder / one, one, place).items()}


def components(kept: Kept, frozen: Params) -> dict[str, Component]:
    """Returns both towers with their weights, as the bundle of a prior has them."""
    parts = (("text_encoder", kept.text), ("image_encoder", kept.image))
    return {name: dataclasses.replace(part, params=frozen[name]) for name, part in parts}


def check_widths(net: Any, kept: Kept, where: Any) -> None:
    """Refuses a prior whose widths are not CLIP's; `where` that is, for the message."""
    text, embed = kept.text.config, kept.image.config.projection
    for name, width in {"embed": embed, "vector": text.projection, "length": text.length, "text": text.width}.items():
        if (own := getattr(net, name, width)) != width:
            raise ValueError(f"task.net.{name} is {own}, and {where} has {width}: set it to that")
