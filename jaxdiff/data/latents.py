"""Latents on disk: pictures that an autoencoder encoded once, to be trained on many times.

    DIR/latents.json               what all of it has in common (`Plan`)
    DIR/autoencoder/               the networks that it was made with, as diffusers writes them
    DIR/text_encoder/, tokenizer/
    DIR/SPLIT/00000.array_record   rows (`Layout`)
    DIR/SPLIT/00000.json           of these rows, in plain text: captions, labels, numbers in the data
    DIR/SPLIT/manifest.json        written last: the shards, their checksums, mean and deviation (`Manifest`)

A row holds `moments`, what the encoder says of the picture before anything is drawn or scaled: mean and log-variance
side by side for an autoencoder with a Gaussian, or the latents themselves, not yet quantised where there is a codebook;
`small`, the picture itself in the size of the latents; and `context`, the states of its caption, where there is a
frozen text encoder. Each has one entry, or a second one of the mirrored picture.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff import kinds
from jaxdiff.data.config import LATENTS, DataConfig
from jaxdiff.data.text import listing, write_text

MANIFEST, _CHECKED = "manifest.json", ".checked.json"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Holds what all shards of a directory have in common.

    Attributes:
      data: name of the data.
      subset: subset of the pictures.
      size: side of the pictures, or of a square of their area.
      mirrored: whether each row holds the mirrored picture too.
      labels: names of the classes.
      autoencoder: hash of the network.
      kind: its class.
      text_encoder: hash of the network; None: there are no text states.
      dtype: dtype of the moments and text states.
      factor: picture pixels for each latent, along a side.
      channels: channels of the moments.
      context: tokens and width of the text states.
      shapes: (height, width) of the pictures of each bucket.
      shard_rows: most rows of a shard.
      format: format of the files.
    """

    data: str
    subset: str
    size: int
    mirrored: bool
    labels: tuple[str, ...]
    autoencoder: str
    kind: str
    text_encoder: str | None
    dtype: str
    factor: int
    channels: int
    context: tuple[int, int] | None
    shapes: tuple[tuple[int, int], ...]
    shard_rows: int
    format: int = 1


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of rows.

    Attributes:
      name: name of both its files, without their endings.
      shape: number of its bucket.
      rows: how many.
      sha256: of the rows' file.
      text_sha256: of the text file.
    """

    name: str
    shape: int
    rows: int
    sha256: str
    text_sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A split that is complete.

    Attributes:
      plan: hash of the plan.
      mean: mean of the latents, for each channel, over all rows and what may be drawn of them.
      std: likewise.
      shards: in the order of the examples; those of a bucket lie together.
    """

    plan: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shards: tuple[Shard, ...]

    @property
    def deviation(self) -> float:
        """Returns the standard deviation over all numbers of the latents, whatever their channel."""
        mean, std = np.array(self.mean), np.array(self.std)
        return math.sqrt((std**2 + mean**2).mean() - mean.mean() ** 2)


class Layout:
    """Packs a row into a record and back: label, arrays one after another, caption.

    Attributes:
      fields: dtype and shape of each array, by name.
    """

    def __init__(self, plan: Plan, shape: int):
        """Lays out the rows of a bucket."""
        height, width = (side // plan.factor for side in plan.shapes[shape])
        copies, dtype = 2 if plan.mirrored else 1, np.dtype(plan.dtype)
        self.fields: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
            "moments": (dtype, (copies, height, width, plan.channels)),
            "small": (np.dtype(np.uint8), (copies, height, width, 3)),
        }
        if plan.context:
            self.fields["context"] = (dtype, plan.context)

    def pack(self, arrays: Mapping[str, np.ndarray], caption: str, label: int) -> bytes:
        """Returns a record.

        Raises:
          ValueError: for an array of another shape.
        """
        parts = [np.int32(label).tobytes()]
        for name, (dtype, shape) in self.fields.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} is of shape {arrays[name].shape}: expected {shape}")
            parts.append(np.ascontiguousarray(arrays[name], dtype).tobytes())
        return b"".join([*parts, caption.encode()])

    def unpack(self, record: bytes) -> dict[str, Any]:
        """Returns the example of a record; its arrays cannot be written to."""
        row: dict[str, Any] = {"label": int(np.frombuffer(record, np.int32, 1)[0])}
        at = 4
        for name, (dtype, shape) in self.fields.items():
            count = math.prod(shape)
            row[name] = np.frombuffer(record, dtype, count, at).reshape(shape)
            at += count * dtype.itemsize
        return {**row, "caption": record[at:].decode()}


class LatentSource:
    """The examples of a split: `moments`, `small` and perhaps `context`, as `Layout` has them, caption and label.

    The checksums of all files are compared at opening. What was found sound is noted in a file beside them, so that the
    next opening reads only what changed.

    Attributes:
      plan: what all splits have in common.
      manifest: manifest of this one.
      folder: the directory of the latents.
      labels: the names of the classes.
      groups: sizes of the buckets; examples of one bucket follow each other.

    Raises:
      ValueError: if there is no such split, it is incomplete, or made of other pictures than the config asks for.
      OSError: if files are missing or damaged; names them.
    """

    def __init__(self, config: DataConfig):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self.folder = Path(os.path.expanduser(config.name))
        self.plan = read_plan(self.folder)
        split = self.folder / config.split
        self.manifest = _read_manifest(split, self.plan)
        _check_config(self.folder, self.plan, config)
        check_files(split, self.manifest)
        self._copies = 2 if config.flip else 1
        self.labels = self.plan.labels
        shards = self.manifest.shards
        by_shape = [sum(shard.rows for shard in shards if shard.shape == i) for i in range(len(self.plan.shapes))]
        self.groups = tuple(rows for rows in by_shape if rows)
        self._ends = np.cumsum([shard.rows for shard in shards])
        self._layouts = [Layout(self.plan, i) for i in range(len(self.plan.shapes))]
        self._split = split
        self._records = ArrayRecordDataSource([str(split / f"{shard.name}.array_record") for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Any:
        shard = self.manifest.shards[int(np.searchsorted(self._ends, index, "right"))]
        try:
            record = self._records[index]
        except RuntimeError as error:  # of ArrayRecord, which checks what it reads
            raise OSError(f"{self._split / shard.name}.array_record cannot be read: {error}") from error
        row = self._layouts[shard.shape].unpack(record)
        return {**row, **{name: row[name][: self._copies] for name in ("moments", "small")}}

    def captions(self) -> list[str]:
        """Returns all captions in order, from the text files."""
        return [caption for text in self.texts() for caption in text["captions"]]

    def texts(self) -> Iterator[dict[str, Any]]:
        """Returns the text files of the shards."""
        for shard in self.manifest.shards:
            yield json.loads((self._split / f"{shard.name}.json").read_text(encoding="utf-8"))


def read_plan(folder: Path) -> Plan:
    """Reads latents.json.

    Raises:
      ValueError: if it is damaged, or of a later version.
    """
    path = folder / LATENTS
    try:
        plan = kinds.from_json(Plan, path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or of a later version: {error}") from error
    if plan.format != 1:
        raise ValueError(f"{path} is of format {plan.format}: this version reads format 1")
    return plan


def fingerprint(plan: Plan) -> str:
    """Returns the hash of a plan."""
    return hashlib.sha256(kinds.to_json(plan).encode()).hexdigest()


def _read_manifest(split: Path, plan: Plan) -> Manifest:
    path = split / MANIFEST
    if not path.is_file():
        done = sorted(one.parent.name for one in split.parent.glob(f"*/{MANIFEST}"))
        state = "is not complete: run `jaxdiff latents` again, which resumes" if split.is_dir() else "is not there"
        raise ValueError(f"the split {split} {state}; complete are: {listing(done) or 'none'}")
    try:
        manifest = kinds.from_json(Manifest, path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if manifest.plan != fingerprint(plan):
        raise ValueError(
            f"{path} was not made with {split.parent / LATENTS}: one of them was changed, so make them anew"
        )
    return manifest


def _check_config(folder: Path, plan: Plan, config: DataConfig) -> None:
    if config.size != plan.size:
        raise ValueError(f"data.size is {config.size}, and {folder} holds latents of {plan.size}: set it to that")
    if config.subset not in ("all", plan.subset):
        raise ValueError(f"data.subset is {config.subset!r}, and {folder} was made of {plan.subset!r}: give that")
    if config.flip and not plan.mirrored:
        raise ValueError(f"data.flip is True, and {folder} holds no mirrored pictures: leave it, or make them so")


def check_files(split: Path, manifest: Manifest) -> None:
    """Compares the files of a split with its manifest, and notes what was sound.

    Raises:
      OSError: names the files that are missing, and those that are damaged.
    """
    expected = {f"{shard.name}.array_record": shard.sha256 for shard in manifest.shards}
    expected |= {f"{shard.name}.json": shard.text_sha256 for shard in manifest.shards}
    if missing := [name for name in expected if not (split / name).is_file()]:
        raise FileNotFoundError(f"{split} lacks {listing(missing)}: put them back, or run `jaxdiff latents` again")
    stats = {name: (split / name).stat() for name in expected}
    stamps = {name: [expected[name], stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    noted = _noted(split / _CHECKED)
    new = [name for name in expected if noted.get(name) != stamps[name]]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda name: sha256(split / name), new)
        damaged = [name for name, digest in zip(new, digests, strict=True) if digest != expected[name]]
    if damaged:
        raise OSError(f"{split}: {listing(damaged)} damaged: remove them and run `jaxdiff latents` again")
    if new:
        try:
            write_text(split / _CHECKED, json.dumps(stamps))
        except OSError:
            return  # a folder that cannot be written to is checked anew each time


def _noted(path: Path) -> Mapping[str, Any]:
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


def sha256(path: Path) -> str:
    """Returns the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
