"""Random access to captioned pictures: `open_source(config)` finds a data set by name and opens it.

A data set is a TFDS one with a feature of pictures ('openmoji', 'cifar10', ...), a folder of pictures with captions, a
directory of latents that `jaxdiff latents` made, tars or parquet files, also in a bucket, or one of `MADE`.
"""

import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxdiff.data.config import DataConfig, Example, Source, check, is_latents
from jaxdiff.data.digits import DigitsSource
from jaxdiff.data.latents import LatentSource
from jaxdiff.data.shapes import ShapesSource
from jaxdiff.data.shards import find, names_shards
from jaxdiff.data.subsets import SUBSETS
from jaxdiff.data.synthetic import SyntheticSource

_CACHE_BYTES = 256 * 2**20
MADE: dict[str, Callable[[DataConfig], Source]] = {
    "synthetic": SyntheticSource,
    "shapes": ShapesSource,
    "digits": DigitsSource,
}
"""Sources whose pictures lie in no file of their own."""


def open_source(config: DataConfig) -> Source:
    """Opens a data set, preparing it first if it is a TFDS one that is not prepared yet.

    A set whose decoded pictures fill less than 256 MiB is kept in memory as it is read.

    Raises:
      ValueError: if the config names no data set, split or subset that exists, if nothing is in the subset, or if more
        than 1% of a folder's pictures are damaged.
    """
    check(config)
    source = _open(config)
    if isinstance(source, LatentSource):
        return source
    if config.subset != "all":
        keep = [i for i, caption in enumerate(source.captions()) if SUBSETS[config.subset](caption)]
        source = Part(source, keep)
    if not len(source):
        raise ValueError(f"no picture in data.name {config.name!r}, split {config.split!r}, subset {config.subset!r}")
    return Kept(source) if len(source) * config.size**2 * 3 < _CACHE_BYTES else source


def open_shaped(config: DataConfig) -> Any:
    """Opens data whose pictures can be had in other shapes than squares: `sides(index)`, `shaped(index, h, w)`.

    Raises:
      ValueError: as `open_source`, and for a subset or synthetic pictures.
    """
    check(config)
    if config.name in MADE:
        raise ValueError(f"data.name is {config.name!r}, whose pictures are all squares: leave buckets at 1")
    if config.subset != "all":
        raise ValueError(f"data.subset is {config.subset!r}, whose pictures are all squares: leave buckets at 1")
    return _open(config)


def kind_of(name: str) -> Literal["tfds", "folder", "latents", "shards", "made"]:
    """Tells what a name of data means.

    'synthetic' is noise, 'shapes' squares and discs of known factors, 'digits' scikit-learn's, and a folder with
    latents.json one of latents; a folder or a pattern of tars or parquet, and a bucket, are 'shards'. A name that
    begins with '.', '/' or '~' is a folder, one that begins with 'tfds:' a TFDS data set; another one is whichever
    exists.

    Raises:
      ValueError: if a data set and a folder have the name, or neither; says how to name each, or which names are near.
    """
    if is_latents(name):
        return "latents"
    if name in MADE:
        return "made"
    if names_shards(name):
        return "shards"
    if name.startswith((".", "/", "~")):
        if not Path(os.path.expanduser(name)).is_dir():
            raise ValueError(f"data.name is {name!r}: there is no such folder; nearest: {_near(name, ())}")
        return "folder"
    from jaxdiff.data import tfds_source

    is_folder, known = Path(name).is_dir(), tfds_source.names()
    is_tfds = re.split("[/:]", name.removeprefix("tfds:"))[0] in known
    if is_tfds and is_folder and not name.startswith("tfds:"):
        raise ValueError(
            f"data.name is {name!r}, a TFDS data set and a folder here: write './{name}' for the folder, 'tfds:{name}' "
            "for the data set"
        )
    if is_tfds or is_folder:
        return "tfds" if is_tfds else "folder"
    raise ValueError(
        f"data.name is {name!r}: expected a TFDS name or a folder of pictures; nearest names: {_near(name, known)}; of "
        f"all {len(known)}, see the catalogue of tensorflow_datasets"
    )


def _near(name: str, known: Sequence[str]) -> str:
    """Returns the nearest names of TFDS and of folders beside a path."""
    path = Path(os.path.expanduser(name))
    beside = [str(one) for one in path.parent.iterdir() if one.is_dir()] if path.parent.is_dir() else []
    base = re.split("[/:]", name.removeprefix("tfds:"))[0]
    near = [*difflib.get_close_matches(base, known, 5, 0.4), *difflib.get_close_matches(str(path), beside, 2, 0.7)]
    return ", ".join(near) or "none"


def _open(config: DataConfig) -> Source:
    from jaxdiff.data import folder, parquet, tars, tfds_source

    kind = kind_of(config.name)
    if config.repeats and kind != "folder":
        raise ValueError(f"data.repeats is True, and {config.name!r} is no folder of pictures: leave it out")
    if kind == "latents":
        return LatentSource(config)
    if kind == "made":
        return MADE[config.name](config)
    if kind == "shards":
        files = find(config.name, config.split)
        of = tars.TarSource if files.paths[0].endswith(".tar") else parquet.ParquetSource
        return of(files, config.size)
    return tfds_source.TfdsSource(config) if kind == "tfds" else folder.FolderSource(config)


def names_of(source: Source) -> list[str]:
    """Returns the paths of a source's pictures below their folder, in order; [] of data that lie in none."""
    names: list[str] = getattr(source, "names", list)()
    return names


def hints_of(source: Source) -> list[Path | None]:
    """Returns the hint that metadata.jsonl names for each picture, in order; [] of data that lie in no folder."""
    hints: list[Path | None] = getattr(source, "hints", list)()
    return hints


class Part:
    """Some examples of a source, in the order of `indices`."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.labels, self._source, self._indices = source.labels, source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        return self._source[self._indices[index]]

    def captions(self) -> list[str]:
        """Returns all captions in order, without decoding a picture."""
        captions = self._source.captions()
        return [captions[i] for i in self._indices]

    def names(self) -> list[str]:
        """Returns the paths of all pictures below their folder; none of what lies in no folder."""
        names = names_of(self._source)
        return [names[i] for i in self._indices] if names else []

    def hints(self) -> list[Path | None]:
        """Returns the hints of all pictures; none of what lies in no folder."""
        hints = hints_of(self._source)
        return [hints[i] for i in self._indices] if hints else []


class Kept:
    """A source whose examples stay in memory once read."""

    def __init__(self, source: Source):
        self.labels, self.captions, self._source = source.labels, source.captions, source
        self.names = lambda: names_of(source)
        self.hints = lambda: hints_of(source)
        self.sides = getattr(source, "sides", None)
        self._examples: list[Example | None] = [None] * len(source)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        example = self._examples[index]
        if example is None:  # two threads may both read it; they read the same
            example = self._examples[index] = self._source[index]
        return example
