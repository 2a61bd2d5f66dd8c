"""Latents of whole data sets: encodes what `data.latent_shards` lays out, and keeps the networks beside them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data import buckets, latent_shards, tokenizer_clip
from jaxdiff.data.config import DataConfig
from jaxdiff.data.latents import Manifest, Plan
from jaxdiff.data.source import open_shaped, open_source
from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines import first_stage
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.write import write_component


class Text(NamedTuple):
    """CLIP's text encoder and its tokenizer."""

    encoder: Component
    tokenizer: ClipTokenizer


@dataclasses.dataclass(frozen=True)
class EncodeConfig:
    """Says how latents are stored, and which process makes which.

    Attributes:
      dtype: dtype of moments and text states.
      buckets: shapes of about the same area, from upright to wide, for pictures of many shapes; 1: squares.
      shard_rows: most rows of a file.
      batch: pictures that are encoded at once, by all devices of a process.
      process: which of `processes` this is, from 0; each makes shards of its own.
      processes: how many work on it, at once or one after another.
    """

    dtype: str = "float16"
    buckets: int = 1
    shard_rows: int = 1024
    batch: int = 32
    process: int = 0
    processes: int = 1

    def check(self) -> None:
        """Refuses numbers that cannot be meant.

        Raises:
          ValueError: names the field.
        """
        for name in ("buckets", "shard_rows", "batch", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if not 0 <= self.process < self.processes:
            raise ValueError(f"process is {self.process}: expected 0 to {self.processes - 1}, for {self.processes}")


Counting = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(what, total) -> a context that gives a function to be called with how many are done."""


def encode(
    data: DataConfig,
    splits: Sequence[str],
    vae: Component,
    out: Path,
    *,
    text: Text | None = None,
    config: EncodeConfig = EncodeConfig(),
    say: Callable[[str], None] = lambda text: None,
    counting: Counting = lambda what, total: nullcontext(lambda done: None),
) -> dict[str, Manifest | None]:
    """Encodes splits of a data set, as far as they are not there; the same call resumes after a kill.

    Args:
      data: which pictures; with `flip` their mirrored ones too.
      splits: splits that are encoded.
      vae: the autoencoder.
      out: the directory.
      text: makes states of the captions.
      config: see `EncodeConfig`.
      say: called with what is done.
      counting: shows progress.

    Returns:
      The manifest of each split; None where other processes have not made their shards yet.

    Raises:
      ValueError: if `out` holds latents that were made otherwise, or the data do not fit the networks.
      FloatingPointError: if latents do not fit their dtype.
    """
    config.check()
    latent_shards.check(out)  # before data are prepared
    plan, function = _plan(data, vae, text, config), _function(vae, text, data.flip)
    run = Spread(function, devices=jax.local_devices(), multiple=config.batch)
    weights = jax.device_put({"vae": vae.params, "text": text.encoder.params if text else {}})
    of_examples = functools.partial(_encode, run, weights, text, data.flip)
    manifests: dict[str, Manifest | None] = {}
    for split in splits:
        one = dataclasses.replace(data, split=split)
        source = open_source(one) if config.buckets == 1 else open_shaped(one)
        plan = dataclasses.replace(plan, labels=tuple(source.labels))
        latent_shards.begin(out, plan)
        _keep_networks(out, vae, text)
        parts = latent_shards.parts(source, plan)
        mine = parts[config.process :: config.processes]
        left = latent_shards.missing(out / split, mine, len(source))
        total, done = (sum(len(part.rows) for part in some) for some in (mine, mine))
        done -= sum(len(part.rows) for part in left)
        say(f"{split}: {len(source)} pictures in {len(parts)} shards, {len(mine)} of this process, {len(left)} to make")
        if left:
            with counting(f"{split} pictures", total) as tell:
                tell(done)
                for part in left:

                    def count(rows: int) -> None:
                        nonlocal done
                        done += rows
                        tell(done)

                    latent_shards.write(out / split, part, source, plan, of_examples, config.batch, count)
        manifests[split] = latent_shards.finish(out / split, parts, plan, len(source))
    return manifests


def _plan(data: DataConfig, vae: Component, text: Text | None, config: EncodeConfig) -> Plan:
    factor = first_stage.factor(vae)
    unit = factor * max(1, data.size // (16 * factor)) if config.buckets > 1 else factor
    shapes = buckets.shapes(data.size, config.buckets, factor if data.size % unit else unit)
    return Plan(
        data=data.name,
        subset=data.subset,
        size=data.size,
        mirrored=data.flip,
        labels=(),
        autoencoder=first_stage.fingerprint(vae),
        kind=vae.kind,
        text_encoder=first_stage.fingerprint(text.encoder) if text else None,
        dtype=config.dtype,
        factor=factor,
        channels=first_stage.channels(vae)[0],
        context=(text.encoder.config.length, text.encoder.config.width) if text else None,
        shapes=shapes,
        shard_rows=config.shard_rows,
    )


def _function(vae: Component, text: Text | None, mirrored: bool) -> Any:
    """Returns a function (weights, {"image": [b h w 3], "tokens": [b l]}) -> the fields of rows."""
    factor = first_stage.factor(vae)
    both = lambda x: jnp.stack([x, x[:, :, ::-1]], 1) if mirrored else x[:, None]

    def function(weights: Any, batch: Any) -> dict[str, Any]:
        image = both(batch["image"])
        flat = image.reshape(-1, *image.shape[2:])
        rows: dict[str, Any] = {
            "moments": first_stage.moments(vae, weights["vae"], flat),
            "small": jnp.round(first_stage.reduced(flat, factor)).astype(jnp.uint8),
        }
        rows = {name: x.reshape(*image.shape[:2], *x.shape[1:]) for name, x in rows.items()}
        if text:
            rows["context"] = first_stage.states(text.encoder, weights["text"], batch["tokens"])
        return rows

    return function


def _encode(run: Spread, weights: Any, text: Text | None, mirrored: bool, examples: Sequence[Any]) -> Any:
    batch = {"image": np.stack([one["image"] for one in examples])}
    if text:
        length = text.encoder.config.length
        batch["tokens"] = np.stack([text.tokenizer.encode(one["caption"], length) for one in examples])
    return run(weights, batch)


def _keep_networks(out: Path, vae: Component, text: Text | None) -> None:
    first_stage.write_once(out / "autoencoder", lambda folder: write_component(vae, folder))
    if text:
        write_text_encoder(out, text)


def write_text_encoder(out: Path, text: Text) -> None:
    """Writes text_encoder/ and tokenizer/ into a directory that has them not yet."""
    first_stage.write_once(out / "text_encoder", lambda folder: write_component(text.encoder, folder))
    words = lambda folder: tokenizer_clip.write(text.tokenizer, folder, text.encoder.config.length)
    first_stage.write_once(out / "tokenizer", words)
