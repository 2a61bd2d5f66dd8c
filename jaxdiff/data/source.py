"""Random access to captioned pictures: `open_source(config)` finds a data set by name and opens it.

A data set is a TFDS one with a feature of pictures ('openmoji', 'cifar10', ...) or a folder of pictures with captions.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np

from jaxdiff.data.subsets import SUBSETS

_CACHE_BYTES = 256 * 2**20


class Example(TypedDict):
    """One record of a source; `image` is uint8 [size, size, 3] and read-only."""

    image: np.ndarray
    caption: str
    label: int


@runtime_checkable
class Source(Protocol):
    """Pictures by number; the same number always gives the same example.

    Attributes:
      labels: the names of the label ids; empty if the data set has no classes (every label is then 0).
    """

    labels: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def captions(self) -> list[str]:
        """All captions in order, without decoding a picture."""
        ...


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they are read.

    Attributes:
      name: a TFDS name, with its config where it has several ('openmoji', 'cifar10', 'imagenet_resized/32x32'), or a
        folder of pictures with captions.
      split: 'train', 'test', 'all', or what TFDS can read ('train[:10%]'); for a folder, a folder of that name in it.
      size: pictures are scaled and cut to size x size pixels.
      subset: a part chosen by caption, one of `subsets.SUBSETS`: 'all', 'plain', 'quickstart'.
      flip: mirror half of the pictures, chosen anew each time one is drawn; not where captions tell left from right.
      articles: put "a" or "an" before half of the captions, chosen anew each time, where captions are bare names and
        prompts may not be.
      dir: where prepared TFDS data lie; default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      workers: threads that load ahead; 0 loads when a batch is asked for.
    """

    name: str = "openmoji"
    split: str = "train"
    size: int = 32
    subset: str = "all"
    flip: bool = False
    articles: bool = False
    dir: str | None = None
    workers: int = 2


def check(config: DataConfig) -> None:
    """Refuses a config that cannot be meant, before anything is opened.

    Raises:
      ValueError: naming the field, what was given and what is expected.
    """
    if config.subset not in SUBSETS:
        raise ValueError(f"data.subset is {config.subset!r}: expected one of {', '.join(SUBSETS)}")
    if config.size < 1:
        raise ValueError(f"data.size is {config.size}: expected at least 1 pixel")
    if config.workers < 0:
        raise ValueError(f"data.workers is {config.workers}: expected 0 or more threads")


def open_source(config: DataConfig) -> Source:
    """Opens a data set, preparing it first if it is a TFDS one that is not prepared yet.

    A set whose decoded pictures fill less than 256 MiB is kept in memory as it is read.

    Raises:
      ValueError: if the config names no data set, split or subset that exists, if nothing is in the subset, or if more
        than 1% of a folder's pictures are damaged.
    """
    check(config)
    source = _open(config)
    if config.subset != "all":
        keep = [i for i, caption in enumerate(source.captions()) if SUBSETS[config.subset](caption)]
        source = Part(source, keep)
    if not len(source):
        raise ValueError(f"no picture in data.name {config.name!r}, split {config.split!r}, subset {config.subset!r}")
    return Kept(source) if len(source) * config.size**2 * 3 < _CACHE_BYTES else source


def _open(config: DataConfig) -> Source:
    from jaxdiff.data import folder, tfds_source

    if (name := config.name.partition("/")[0]) in (known := tfds_source.names()):
        return tfds_source.TfdsSource(config)
    if Path(config.name).expanduser().is_dir():
        return folder.FolderSource(config)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
    raise ValueError(
        f"data.name is {config.name!r}: expected a TFDS name or a folder of pictures; "
        f"nearest names: {', '.join(near) or 'none'}; of all {len(known)}, see the catalogue of tensorflow_datasets"
    )


class Part:
    """Some examples of a source, in the order of `indices`."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.labels, self._source, self._indices = source.labels, source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        return self._source[self._indices[index]]

    def captions(self) -> list[str]:
        """All captions in order, without decoding a picture."""
        captions = self._source.captions()
        return [captions[i] for i in self._indices]


class Kept:
    """A source whose examples stay in memory once read."""

    def __init__(self, source: Source):
        self.labels, self.captions, self._source = source.labels, source.captions, source
        self._examples: list[Example | None] = [None] * len(source)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        example = self._examples[index]
        if example is None:  # two threads may both read it; they read the same
            example = self._examples[index] = self._source[index]
        return example
